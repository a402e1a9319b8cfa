//! GUIDs of the providers that etwsieve reads or writes.

use uuid::{Uuid, uuid};

/// Microsoft-Windows-PowerShell: Windows PowerShell 5.1.
pub const POWERSHELL: Uuid = uuid!("a0c1853b-5c40-4b15-8766-3cf1c58f985a");
/// PowerShellCore: PowerShell 7, with the same event templates.
pub const POWERSHELL_CORE: Uuid = uuid!("f90714a8-5509-434a-bf6d-b1624c8a19a2");
/// Microsoft-Antimalware-Scan-Interface: content passed to the antimalware scanner.
pub const AMSI: Uuid = uuid!("2a576b87-09a7-520e-c21a-4942f0271d67");
/// The sensor, as the provider of its notices. The GUID is not registered with Windows.
pub const SENSOR: Uuid = uuid!("5d0e9a4c-3c1b-4f63-9d0a-8a6f1f5b7e21");
/// RT_LostEvent: ETW reports lost events and buffers to a real-time consumer under this provider.
pub const LOST_EVENT: Uuid = uuid!("6a399ae0-4bc6-4de9-870b-3657f8947e7e");

/// Returns true for the two PowerShell providers.
pub fn is_powershell(provider: &Uuid) -> bool {
    *provider == POWERSHELL || *provider == POWERSHELL_CORE
}
