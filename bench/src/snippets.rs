//! Pieces of everyday PowerShell, written for this project, from which traces are generated.
//!
//! None contains a needle of the built-in rule, so that only the generator inserts needles. `@1` and `@2` are placeholders
//! for numbers.

pub(crate) const SNIPPETS: &[&str] = &[
    "prompt",
    "$service = Get-Service -Name 'Spooler'\r\nif ($service.Status -ne 'Running') {\r\n    Start-Service -InputObject $service\r\n    Write-Verbose \"service @1 started again\"\r\n}\r\n",
    "function Get-FreeSpace@1 {\r\n    [CmdletBinding()]\r\n    param([Parameter(Mandatory)] [string] $Drive, [int] $WarnBelow = @2)\r\n    $disk = Get-CimInstance -ClassName Win32_LogicalDisk -Filter \"DeviceID = '$Drive'\"\r\n    [pscustomobject]@{ Drive = $Drive; Free = [math]::Round($disk.FreeSpace / 1GB, 1); Low = $disk.FreeSpace -lt $WarnBelow }\r\n}\r\n",
    "Get-ChildItem -Path 'D:\\Shares\\Team@1' -Recurse -File |\r\n    Where-Object { $_.LastWriteTime -lt (Get-Date).AddDays(-@2) } |\r\n    Sort-Object -Property Length -Descending |\r\n    Select-Object -First 20 -Property FullName, Length, LastWriteTime\r\n",
    "# Nightly report of the print servers: counts the jobs, keeps the last @1 days, mails the table to the desk.\r\n",
    "try {\r\n    $rows = Import-Csv -Path \"C:\\Ops\\inventory@1.csv\" -Delimiter ';' -ErrorAction Stop\r\n} catch {\r\n    Write-Error \"The inventory cannot be read: $($_.Exception.Message)\"\r\n    return @2\r\n}\r\n",
    "foreach ($row in $rows) {\r\n    $key = '{0}-{1:d4}' -f $row.Site, [int] $row.Number\r\n    if (-not $index.ContainsKey($key)) { $index[$key] = [System.Collections.Generic.List[object]]::new() }\r\n    $index[$key].Add($row)\r\n}\r\n",
    "$total@1 = ($orders | Measure-Object -Property Amount -Sum).Sum\r\n$mean = if ($orders.Count) { $total@1 / $orders.Count } else { 0 }\r\nWrite-Output ('{0,12:n2} {1,12:n2}' -f $total@1, $mean)\r\n",
    "switch -Regex ($line) {\r\n    '^\\s*#'        { continue }\r\n    '^(\\w+)=(.*)$' { $settings[$Matches[1]] = $Matches[2].Trim() }\r\n    default        { $unknown += @1 }\r\n}\r\n",
    "[CmdletBinding(SupportsShouldProcess)]\r\nparam(\r\n    [Parameter(ValueFromPipeline)] [string[]] $Name,\r\n    [ValidateRange(1, @2)] [int] $Retry = @1,\r\n    [switch] $Force\r\n)\r\n",
    "<#\r\n.SYNOPSIS\r\n    Rotates the logs of the web farm.\r\n.DESCRIPTION\r\n    Keeps @1 files for each site and packs what is older. Sites without a folder are skipped with a warning.\r\n.EXAMPLE\r\n    Invoke-Rotation -Site intranet -Keep @2\r\n#>\r\n",
    "$table = [ordered]@{}\r\n1..@1 | ForEach-Object { $table[\"item$_\"] = $_ * @2 }\r\n$table.GetEnumerator() | Format-Table -AutoSize | Out-String -Width 120\r\n",
    "Write-Progress -Activity 'Copying' -Status \"$done of $count files\" -PercentComplete (100 * $done / [math]::Max(1, $count)) -Id @1\r\n",
    "$xml = [xml](Get-Content -Path $config -Raw -Encoding utf8)\r\n$node = $xml.SelectSingleNode('/settings/site[@id=\"@1\"]')\r\nif ($null -eq $node) { throw \"site @1 is not in $config\" }\r\n$node.SetAttribute('port', '@2')\r\n$xml.Save($config)\r\n",
    "# Größe der Ablage prüfen – Rückgabe in Megabyte, höchstens @1\r\n$größe = (Get-ChildItem -LiteralPath $ablage -Recurse | Measure-Object Length -Sum).Sum / 1MB\r\n",
    "$job = Start-Job -Name \"pack@1\" -ScriptBlock { param($path) Compress-Archive -Path $path -DestinationPath \"$path.zip\" -Update } -ArgumentList $folder\r\nWait-Job -Job $job -Timeout @2 | Out-Null\r\nReceive-Job -Job $job\r\n",
    "if ($PSVersionTable.PSVersion.Major -ge 7) { $parallel = @{ Parallel = $true; ThrottleLimit = @1 } } else { $parallel = @{} }\r\n",
    "return [pscustomobject]@{\r\n    Host    = [System.Net.Dns]::GetHostName()\r\n    Checked = Get-Date -Format 'yyyy-MM-dd HH:mm'\r\n    Passed  = $passed\r\n    Failed  = $failed\r\n    Run     = @1\r\n}\r\n",
    "        $value = $value -replace '\\s+', ' '\r\n        if ($value.Length -gt @1) { $value = $value.Substring(0, @1) + [char]0x2026 }\r\n",
    "Describe 'rotation of logs' {\r\n    It 'keeps the newest @1' {\r\n        $kept = Select-Newest -Files $files -Keep @1\r\n        $kept.Count | Should -Be @1\r\n        $kept[0].Name | Should -BeExactly 'site-@2.log'\r\n    }\r\n}\r\n",
];
