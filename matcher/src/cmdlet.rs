//! Cmdlets with their aliases and parameters.
//!
//! The aliases are taken from PowerShell/PowerShell, `engine/InitialSessionState.cs` (`SessionStateAliasEntry`), as of
//! Windows PowerShell 5.1. Parameters, their aliases and positions are those that the help pages of version 5.1
//! document; they have not been compared with the attributes in the source. An abbreviation is accepted if it is the
//! prefix of exactly one parameter, common parameters included.

use crate::pattern::fold;

/// A cmdlet.
#[derive(Debug)]
pub(crate) struct Cmdlet {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// Parameters that take an argument.
    pub(crate) parameters: &'static [&'static str],
    /// Parameters that take no argument.
    pub(crate) switches: &'static [&'static str],
    /// Aliases of parameters.
    pub(crate) parameter_aliases: &'static [(&'static str, &'static str)],
    /// The parameters that positional arguments belong to, in order.
    pub(crate) positions: &'static [&'static str],
}

/// Common parameters with an argument.
pub(crate) const COMMON: [&str; 9] = [
    "ErrorAction",
    "ErrorVariable",
    "InformationAction",
    "InformationVariable",
    "OutBuffer",
    "OutVariable",
    "PipelineVariable",
    "WarningAction",
    "WarningVariable",
];

/// Common parameters without an argument.
pub(crate) const COMMON_SWITCHES: [&str; 2] = ["Debug", "Verbose"];

/// Aliases of the common parameters.
pub(crate) const COMMON_ALIASES: [(&str, &str); 11] = [
    ("ea", "ErrorAction"),
    ("ev", "ErrorVariable"),
    ("infa", "InformationAction"),
    ("iv", "InformationVariable"),
    ("ob", "OutBuffer"),
    ("ov", "OutVariable"),
    ("pv", "PipelineVariable"),
    ("wa", "WarningAction"),
    ("wv", "WarningVariable"),
    ("db", "Debug"),
    ("vb", "Verbose"),
];

/// Parameter aliases of the cmdlets that open a session.
const SESSION_ALIASES: [(&str, &str); 4] =
    [("Cn", "ComputerName"), ("URI", "ConnectionUri"), ("CU", "ConnectionUri"), ("VMGuid", "VMId")];

/// The known cmdlets.
pub(crate) const CMDLETS: [Cmdlet; 9] = [
    Cmdlet {
        name: "Enter-PSSession",
        aliases: &["etsn"],
        parameters: &[
            "ComputerName",
            "Session",
            "ConnectionUri",
            "InstanceId",
            "Id",
            "Name",
            "Credential",
            "ConfigurationName",
            "Port",
            "ApplicationName",
            "SessionOption",
            "Authentication",
            "CertificateThumbprint",
            "VMId",
            "VMName",
            "ContainerId",
        ],
        switches: &["EnableNetworkAccess", "AllowRedirection", "UseSSL", "RunAsAdministrator"],
        parameter_aliases: &SESSION_ALIASES,
        positions: &["ComputerName"],
    },
    Cmdlet {
        name: "New-PSSession",
        aliases: &["nsn"],
        parameters: &[
            "ComputerName",
            "Credential",
            "Session",
            "Name",
            "ConfigurationName",
            "Port",
            "ApplicationName",
            "ConnectionUri",
            "SessionOption",
            "Authentication",
            "CertificateThumbprint",
            "ThrottleLimit",
            "VMId",
            "VMName",
            "ContainerId",
        ],
        switches: &["EnableNetworkAccess", "UseSSL", "AllowRedirection", "RunAsAdministrator"],
        parameter_aliases: &SESSION_ALIASES,
        positions: &["ComputerName"],
    },
    Cmdlet {
        name: "Invoke-Command",
        aliases: &["icm"],
        parameters: &[
            "ComputerName",
            "Credential",
            "Session",
            "ScriptBlock",
            "FilePath",
            "ArgumentList",
            "InputObject",
            "JobName",
            "SessionName",
            "ConfigurationName",
            "Port",
            "ApplicationName",
            "ConnectionUri",
            "SessionOption",
            "Authentication",
            "CertificateThumbprint",
            "ThrottleLimit",
            "VMId",
            "VMName",
            "ContainerId",
        ],
        switches: &[
            "AsJob",
            "InDisconnectedSession",
            "HideComputerName",
            "UseSSL",
            "AllowRedirection",
            "EnableNetworkAccess",
            "NoNewScope",
            "RunAsAdministrator",
        ],
        parameter_aliases: &[
            ("Cn", "ComputerName"),
            ("Command", "ScriptBlock"),
            ("PSPath", "FilePath"),
            ("Args", "ArgumentList"),
            ("URI", "ConnectionUri"),
            ("CU", "ConnectionUri"),
            ("HCN", "HideComputerName"),
            ("Disconnected", "InDisconnectedSession"),
            ("VMGuid", "VMId"),
        ],
        positions: &["ComputerName", "ScriptBlock"],
    },
    Cmdlet {
        name: "Invoke-Expression",
        aliases: &["iex"],
        parameters: &["Command"],
        switches: &[],
        parameter_aliases: &[],
        positions: &["Command"],
    },
    Cmdlet {
        name: "Invoke-WebRequest",
        aliases: &["iwr", "wget", "curl"],
        parameters: &[
            "Uri",
            "WebSession",
            "SessionVariable",
            "Credential",
            "CertificateThumbprint",
            "Certificate",
            "UserAgent",
            "TimeoutSec",
            "Headers",
            "MaximumRedirection",
            "Method",
            "Proxy",
            "ProxyCredential",
            "Body",
            "ContentType",
            "TransferEncoding",
            "InFile",
            "OutFile",
        ],
        switches: &[
            "UseBasicParsing",
            "UseDefaultCredentials",
            "DisableKeepAlive",
            "ProxyUseDefaultCredentials",
            "PassThru",
        ],
        parameter_aliases: &[("SV", "SessionVariable")],
        positions: &["Uri"],
    },
    Cmdlet {
        name: "Invoke-RestMethod",
        aliases: &["irm"],
        parameters: &[
            "Uri",
            "WebSession",
            "SessionVariable",
            "Credential",
            "CertificateThumbprint",
            "Certificate",
            "UserAgent",
            "TimeoutSec",
            "Headers",
            "MaximumRedirection",
            "Method",
            "Proxy",
            "ProxyCredential",
            "Body",
            "ContentType",
            "TransferEncoding",
            "InFile",
            "OutFile",
        ],
        switches: &[
            "UseBasicParsing",
            "UseDefaultCredentials",
            "DisableKeepAlive",
            "ProxyUseDefaultCredentials",
            "PassThru",
        ],
        parameter_aliases: &[("SV", "SessionVariable")],
        positions: &["Uri"],
    },
    Cmdlet {
        name: "Start-Process",
        aliases: &["saps", "start"],
        parameters: &[
            "FilePath",
            "ArgumentList",
            "Credential",
            "WorkingDirectory",
            "RedirectStandardError",
            "RedirectStandardInput",
            "RedirectStandardOutput",
            "Verb",
            "WindowStyle",
        ],
        switches: &["LoadUserProfile", "NoNewWindow", "PassThru", "Wait", "UseNewEnvironment"],
        parameter_aliases: &[
            ("PSPath", "FilePath"),
            ("Args", "ArgumentList"),
            ("Lup", "LoadUserProfile"),
            ("Nnw", "NoNewWindow"),
            ("RSE", "RedirectStandardError"),
            ("RSI", "RedirectStandardInput"),
            ("RSO", "RedirectStandardOutput"),
        ],
        positions: &["FilePath", "ArgumentList"],
    },
    Cmdlet {
        name: "Get-WmiObject",
        aliases: &["gwmi"],
        parameters: &[
            "Class",
            "Property",
            "Filter",
            "Query",
            "Impersonation",
            "Authentication",
            "Locale",
            "Authority",
            "Credential",
            "ThrottleLimit",
            "ComputerName",
            "Namespace",
        ],
        switches: &["Recurse", "Amended", "DirectRead", "List", "EnableAllPrivileges", "AsJob"],
        parameter_aliases: &[("ClassName", "Class"), ("Cn", "ComputerName"), ("NS", "Namespace")],
        positions: &["Class", "Property"],
    },
    Cmdlet {
        name: "Invoke-WmiMethod",
        aliases: &["iwmi"],
        parameters: &[
            "Class",
            "Name",
            "ArgumentList",
            "InputObject",
            "Path",
            "Impersonation",
            "Authentication",
            "Locale",
            "Authority",
            "Credential",
            "ThrottleLimit",
            "ComputerName",
            "Namespace",
        ],
        switches: &["EnableAllPrivileges", "AsJob", "Confirm", "WhatIf"],
        parameter_aliases: &[("Args", "ArgumentList"), ("Cn", "ComputerName"), ("NS", "Namespace")],
        positions: &["Class", "Name", "ArgumentList"],
    },
];

/// Returns true if the units are this name, ignoring case.
pub(crate) fn is_name(units: &[u16], name: &str) -> bool {
    units.len() == name.len()
        && name.bytes().zip(units).all(|(byte, unit)| u16::from(byte.to_ascii_lowercase()) == fold(*unit))
}
