//! Kinds of files.

use std::fmt;
use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::path::Path;

/// The kind of file that a path names, after following links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A folder.
    Folder,
    /// A pipe, with or without a name.
    Pipe,
    /// A socket.
    Socket,
    /// A device: a terminal, `/dev/zero`, a disk; on Windows also a named pipe, which must be opened only by a client
    /// of its server.
    Device,
}

impl FileKind {
    /// Returns the kind of the file at `path` without opening it.
    ///
    /// # Errors
    ///
    /// Errors of the system.
    pub fn of(path: &Path) -> io::Result<Self> {
        // On Windows querying a device would open it.
        if cfg!(windows) && is_windows_device(&path.to_string_lossy()) {
            return Ok(Self::Device);
        }
        Ok(Self::of_type(fs::metadata(path)?.file_type()))
    }

    fn of_type(kind: FileType) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            if kind.is_fifo() {
                return Self::Pipe;
            }
            if kind.is_socket() {
                return Self::Socket;
            }
            if kind.is_char_device() || kind.is_block_device() {
                return Self::Device;
            }
        }
        if kind.is_dir() { Self::Folder } else { Self::Regular }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regular => "a file",
            Self::Folder => "a folder",
            Self::Pipe => "a pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
        })
    }
}

/// Opens a regular file for reading. Never waits for the writer of a pipe, even if a pipe replaces the file at the same
/// moment.
///
/// # Errors
///
/// Errors of the system, and [`io::ErrorKind::InvalidInput`] for anything but a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    refuse_other(FileKind::of(path)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    refuse_other(FileKind::of_type(file.metadata()?.file_type()))?;
    Ok(file)
}

fn refuse_other(kind: FileKind) -> io::Result<()> {
    if kind == FileKind::Regular {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}, expected a file")))
}

/// Returns true for a path that Windows treats as a device or a pipe: `\\.\…`, `\\server\pipe\…`, and names such as
/// `CON`, which are devices in every folder and with any extension.
///
/// Source: "Naming Files, Paths, and Namespaces" and "Pipe Names" on learn.microsoft.com.
fn is_windows_device(path: &str) -> bool {
    let path = path.replace('/', "\\");
    let lower = path.to_ascii_lowercase();
    if lower.starts_with(r"\\.\") {
        return true;
    }
    if let Some(verbatim) = lower.strip_prefix(r"\\?\") {
        let is_drive = verbatim.as_bytes().get(1) == Some(&b':');
        // A verbatim path with a drive never names a device, not even with the file name CON.
        return !is_drive && !verbatim.starts_with("unc\\") && !verbatim.starts_with("volume{")
            || verbatim.strip_prefix("unc\\").is_some_and(is_pipe_share);
    }
    if lower.strip_prefix(r"\\").is_some_and(is_pipe_share) {
        return true;
    }
    let name = lower.rsplit('\\').next().unwrap_or_default();
    let name = name.split(['.', ':']).next().unwrap_or_default().trim_end();
    let numbered = |prefix| {
        name.strip_prefix(prefix).is_some_and(|rest: &str| {
            matches!(rest, "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³")
        })
    };
    matches!(name, "con" | "prn" | "aux" | "nul" | "conin$" | "conout$") || numbered("com") || numbered("lpt")
}

/// Returns true if the second component of `SERVER\SHARE\…` is the share for pipes.
fn is_pipe_share(path: &str) -> bool {
    path.split('\\').nth(1) == Some("pipe")
}

#[cfg(test)]
mod tests {
    use super::is_windows_device;

    #[test]
    fn windows_devices_are_recognised_by_name() {
        let rows = [
            (r"\\.\pipe\x", true),
            (r"//./PhysicalDrive0", true),
            (r"\\srv\pipe\spoolss", true),
            (r"\\?\UNC\srv\pipe\x", true),
            (r"\\?\GLOBALROOT\Device\Null", true),
            (r"\\?\pipe\x", true),
            ("CON", true),
            (r"C:\case\nul.etl", true),
            ("com1:", true),
            ("LPT9.evtx", true),
            ("CONIN$", true),
            (r"\\srv\share\pipe\a.etl", false),
            (r"\\?\C:\case\con", false),
            (r"\\?\UNC\srv\share\a.etl", false),
            (r"\\?\Volume{0a}\a.etl", false),
            (r"C:\case\console.etl", false),
            ("com10.etl", false),
            ("com.etl", false),
            (r"C:\pipe\a.etl", false),
            ("", false),
        ];
        for (path, expected) in rows {
            assert_eq!(is_windows_device(path), expected, "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_regular_files_are_opened() {
        use super::open_regular;
        use std::path::Path;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let status = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(status.success());
        std::fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let refusal = |path: &Path| open_regular(path).err().map(|error| error.to_string());
        assert_eq!(refusal(&at("file")), None);
        for (name, kind) in
            [("pipe", "a pipe"), ("link", "a device"), ("socket", "a socket"), ("", "a folder")]
        {
            assert_eq!(refusal(&at(name)), Some(format!("it is {kind}, expected a file")), "{name}");
        }
    }
}
