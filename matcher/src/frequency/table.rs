//! Frequencies measured in PowerShell text; data for [`bits`](super::bits).
//!
//! Counted in every second script fragment of a trace of harmless modules (administration of databases, mail and cloud
//! tenants, and PowerShell's own; 37 MB of UTF-16), narrowed as the scanner does. Words that belong to a single one of
//! those modules were removed by hand. Each row or character is one class of [`CLASSES`], and the last one is all other
//! bytes; a character `c` means `(c - b'0') / 2` bits.

/// The classes. All digits are one class, `0`.
pub(super) const CLASSES: &[u8; 58] = b"abcdefghijklmnopqrstuvwxyz0 \t\r\n$-.\"'()={}[],:;_#|\\/`&<>+*@";

/// Bits of each class, without regard to its predecessor.
pub(super) const ALONE: &[u8; CLASSES.len() + 1] =
    b"9=:;7===9CA;;9:;B998<??@>F<3JK;==>>????@@AAABFDCDBEEMGFGHCD";

/// Bits of the column's class after the row's class.
pub(super) const BEHIND: [&[u8; CLASSES.len() + 1]; CLASSES.len() + 1] = [
    b"@99:C@9J:E?666F;F685;?DA=B><XWCPBAEELGMXRKKGGLIUWJJQXUNPDSF",
    b"5?=>5?CE:7D5?>7;F<;A9EFE;I9;XXAK>=ACICKXJKHCHJCQSGFPOXCKLMC",
    b"7@;@5AH8;P9;=E5@J7?69DGJ<K<>XVDMAADDLBKORHKH=NHLSJHMXTOLOVE",
    b"78=:5?BC7EB<>;9;F;9?:?BE@J;5XO<O====>>EIFHC=BDDKMEGKSMDGJND",
    b";@99=<>D?IF;97A;>667C==:@I?6XL;M<=???>EMFDB?ADDQPFGIRKFPHLF",
    b"7@??9;BG4IH>DC5DC9@88IDC?K:6XXBP>@ACBFKXOXBFIKHXPPLNXXOMLSC",
    b"<=>@3?><8GD:@:<>G79<9<DIFGB6XQ?NC:?@<@HKI=9@AIBOOGBKXNFMKOH",
    b"6B?B4CHD7HDB?B5AG;>9<EDI@HC5XP=K?=?@A@GJGF=@CGENOCFIXLELJFJ",
    b":>79;9:LDKA8;469E;87F=M@K>EAXNHSGGEFRIPXMPGJLPDXXOGTWXKFOPI",
    b"?BBD1FFF;EBABI4AFE8D<CCGDD?<XNCRM>EDMETUUIGGJNLXXNEXXXXDXXI",
    b"9=<<3?>B7DE;<<@;E@9=8B9GCFB5XJ;OB<>?C@IMKDA@DCBXNEEXXPHILHH",
    b"9?>84ACB6IE7A@7=J?988@CP:K@8XK<KC?@AFAJRIK@@?EAVPGELXLHMKVI",
    b"6;B<3B?G8EH?9?78JD:@=BFH<G;:XS@JA9@A?COUNJGFDLESPJBKSPIMONI",
    b"6B878:7D;GA>=<:=JA75:<FLBJC7XN=J@<??FBDLKH@@CJEQPGGGXKFQKGI",
    b"?99:A;<D=C=984;9M69:6<:@EKG:XWCPC@DEKFLSMLGGIMHWUIFMXQPOOWI",
    b"4DA<6@D=;JE7@A79K7779CAF>JB;XR@O@@BAFDOLJGJDCKBPNFGMXOJOLMI",
    b"CCE?CIDEFDF2ACBFCDBB3ECBDF@5XXGJGHEDUUHVVVVNKILXXXGXXLXJXXK",
    b"7=:=4A<G6L>@<;7?H:99;:CK:NA8XO@MC>@B;BJQHEEBCJDTR?HDRMDJNMI",
    b";?8@5?E99H?A?@9;;A85:A=I;K>6XN<OD:??B>HKK@F>?JDNM<BMTNGKJOH",
    b"7?;?5?C76FH>@@8<J89;;@AE:LA7XP>K:<?>A@IMLDA@@FAQRDFHUKHHJMH",
    b"=;=<6C?K;LK597B8M567LIICJHC=XXEXKIDGTIPISPQJMPLUXRMXXXXRPXI",
    b"4DAA2FFG6EGCBD8CGCAECHEHGF>?XXDJLCDEQHIXXXKH>PIXXHIMXXCMRHI",
    b"8C>=7CB65DF=?:7?E68?BAAFGGA9XQ?Q8?@A>AGOXIICHLCQLIFOXNGGNIJ",
    b"7A5>8@CB8DF@;A<5D@=5?@CC<F=:XX>FA?@AE>FNFJBBDFBPMHGKNMKFIPG",
    b"=?:>;??D:DC==9:6A<5<A??GA?@4XK:L?;===<DICC><@H@HJD@HXHCLKKE",
    b"5A@@2BA?8CAB=?9>BB=@6??>>=;>XXBNJA=?QGHRHJBDFWVUUCEJXXXFXUF",
    b":::8::FFDFEEACFBFDBDEEFCFE29XO:H8:;=G<HM@H<<@@ANIBAGIHEEGL:",
    b">@>???AC=FGB@@??H?=<AC?KENA1WXR:;C=>?D<>=>QLKMQB@NKCKGJDIAH",
    b"?A;D>B@F9PNEE;G@P<;=DLDNLTF72XC5J?@F>DM;9@NNOSR?QPRSC@TTU@D",
    b"FJGGDIIJFOMGHFFHNFFEHKLMKRI@VX0IIJKLLLKMMMMMNRQPPOQQXTSSTPQ",
    b"IKDAE@KMBPULLJMCUGFDHMFQRUJ1AN6AJACFNCS@=FQUXUX?NURLQBPXPQA",
    b"9=6899;=9?><99;7B776==?AHEILXXVGSXGF:NXAXXXSXX;OLLSSXSXXSXE",
    b":87889=;:?E;7898C;99?:=DIG8:XXGC<LFHIJLKXEKOQXSMMMMNXOFQHSJ",
    b"8;799<;?8A?<8:<7@:6:>=?AHE;:XK7?O=;@FDXLRCJCOXIOO>EEPJMFDXH",
    b";=9:<:=><BC><<>;D<8:=>=D@G<6X@5;@><>D8EB@A>7>;EBGAA>GBBH=AB",
    b"9>:;;;=>=BB>:<>9E=99>?>DAG<6QQ5<A?<<E7FA?A?7C=F>H>CDH@BH@>A",
    b"BD;?@A:C@>FC;<B?LB=<C?BHHM<>XX83;C87<4MAX:QJLJJIOCKEHJQLG??",
    b"NMJNMGMKMXOLLQRNXQIITWWMVXJ4XL3CH8:?E8FD@@4<?>EQJ@CCODNIGLC",
    b"GKHHGGFLIMQGEEJJQHFEIKJXMXA0QMD?VO=?IX9IQHXQMQXXXKODKBEQIGH",
    b"CDEDE@DHFPGDEBF@PCBAGIEMUX<6L@1;NN?BJNVG>FXXXXPXPPXCJNXXPXK",
    b"IGLLIITLQXXOINNHXNIHSPVPUXH6XA1EDA<>K<VHBHD=E@FIKCDDKHNNHX=",
    b"<>9;AAC?<NLB;B;4K>3?C9FCHP8GXXF:CI<>FWOCWD8JXXXXXDXIXMXMPFD",
    b"JLFONHOTLPXOKMJKXIHGSLVOUPC8XJ26J:=??;GCC>8A8CJXGEGDXIKCC;G",
    b"EEBDECFFEFKI>EIEPFCCJHGLOG=2XM3@EO;=GJLCPDJCXPXXNKXCXXXXGEI",
    b">A::9?=@;BE@:;?;K?<<@A@CHD;4XO;;HI<=?GKBVAIK6KHGO58@XBMMFKI",
    b"C@CDCHEHATSDDDK@HE@?FDDREX;2X@2@HP;=ECQR>JJJT@VUUTWDXKXXKUJ",
    b"9=99:<?=9AB:8;;9A:89=;<DGH:7XX<;F5=9L>RBADCGUG?WWILJXBXXAWJ",
    b"AF>?7BBEAKJD:CBBM8A?DADJRX?2HX8AEBDCIFKIHDUMMXK5XKXXXK9XGMF",
    b"CIGFHELGIWUHGGFGVFCFPLGIRXC0XX;D>GDDGTSKMFMKKXMXBFJGXFMXMXF",
    b"<<;5<<=B<FE?:?@=I?5<4A>FND7CXXG>E:>@CDGGJAAJGXXNH>FEXJ9G>XF",
    b"9;87;=:=<AB99=99B;99==<>DG9;XX@:F?=>BDRAGDFIIL@HHE5CXH>L@KC",
    b"JEID<HHPHUSMJ7HFU8F9@KKSQXB@XX19DG7BKKRKS??IEXFVKGW=XGKXKGK",
    b"?@@ABCCADCK:=<DAM@=:FCJK=Q71UV=>GH==;=I@KKKKLPO@NMOP8RQQANO",
    b";:99<=><=GD=:;?;F;:7@<A>HVE@XXKDGDAIPP?IQGQQRVT5TR4UXXAWXT>",
    b"BF@A@@BBBDRBBADBSA?>EHCHHW>3X:4;CE89ABCBH@D<DE@UC;E@>89JXU?",
    b"@BA>CDFDCEFCDDCBEDBDDDGAGF;4XC7?EC?@@93QQFFDDAUTH=VVXXJ6XFJ",
    b">C:>@@A?>GI@??A@I=>?@B@DGV<6XG<<5967A;APG=E?6ICTF=@>F:@I9DD",
    b"@B;AAABA@CKB=?:9KA;7DFEULXLAXJ<?QH==4CS2TMUKVXXIKIXGXXXXIDH",
    b";;3;;;ICCUK<AGG?IEAAF@FDHX49XX=:D@;;<@@EK>BD??IHH>BBH?BIFG:",
];

/// Common words with their bits: a word begins at one of about `2^bits` positions.
pub(super) const WORDS: &str = "\
    parameter=10 system=10 should=10 string=10 write=11 message=11 object=11 server=11 return=11 \
    commandname=12 credential=12 false=12 verbose=12 -message=12 database=12 function=12 results=12 \
    users=12 instance=12 script=12 from=12 scripts=12 microsoft=12 result=12 documents=12 remove=12 \
    ensure=12 management=12 value=12 write-verbose=12 -commandname=12 foreach=12 write-host=12 -not=13 \
    invoke=13 catch=13 present=13 command=13 psboundparameters=13 global=13 enableexception=13 \
    switch=13 boolean=13 target=13 where-object=13 force=13 displayname=13 computername=13 \
    modulename=13 description=13 example=13 resourcename=13 source=13 join=13 default=13 module=13 \
    erroraction=13 context=13 automation=13 powershell=13 -erroraction=13 level=13 beforeall=13 \
    identity=13 method=13 mandatory=13 myinvocation=13 mycommand=13 property=13 https=13 -force=13 \
    parameters=13 cmdletbinding=13 ciminstance=13 pscredential=13 values=13 version=13 out-null=13 \
    select=13 group=13 policy=13 -level=13 configuration=13 inputobject=13 join-path=13 \
    write-message=13 confirm=14 exception=14 validateset=14 query=14 output=14 directory=14 export=14 \
    pscustomobject=14 properties=14 status=14 replace=14 throw=14 current=14 databases=14 continue=14 \
    create=14 process=14 format=14 benullorempty=14 -benullorempty=14 environment=14 import=14 \
    content=14 silentlycontinue=14 enabled=14 windows=14 accesstokens=14 managedidentity=14 params=14 \
    getvalue=14 expected=14 describe=14 stop-function=14 hashtable=14 resource=14 scriptblock=14 \
    region=14 -database=14 commands=14 endregion=14 login=14 warning=14 absent=14 \
    psdefaultparametervalues=14 service=14 elseif=14 instancename=14 match=14 psscriptroot=14 \
    foregroundcolor=14 connectionmode=14 additionalproperties=14 -value=14 childpath=14 failed=14 \
    -foregroundcolor=14 -childpath=14 new-object=14 credentials=14 returns=14 destination=14 \
    computer=14 tostring=14 graph=14 convert=14 config=14 specific=14 certificate=14 authentication=14 \
    -property=14 connect=14 expectedparameters=14 schema=14 backup=14 filter=14 guid=14 specified=14 \
    length=14 resolve=14 testresult=14 testdrive=14 array=14 session=14 installed=14 update=14 \
    collections=14 infrastructure=14 -like=14 -match=14 filepath=14 password=14 instances=14 \
    information=14 exists=14 member=14 -resourcename=15 objects=15 contains=15 filename=15 -target=15 \
    setting=15 -credential=15 assignments=15 applicationsecret=15 multiple=15 convertto=15 because=15 \
    dependencies=15 errorrecord=15 block=15 fullname=15 select-object=15 proper=15 security=15 \
    outputtype=15 moduleversion=15 active=15 folder=15 -source=15 -continue=15 resources=15 \
    exceptions=15 -scriptblock=15 during=15 accepts=15 datetime=15 variable=15 -resolve=15 settings=15";
