//! One error type whose class survives the way to the shell.

use std::fmt;

/// What kind of failure it is; one class is one exit status (`cli.md` section 1, every man page).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 1: not an error: differs, dirty, degraded, work remains.
    Differs,
    /// 2: wrong usage or configuration.
    Usage,
    /// 3: refused for safety.
    Refused,
    /// 4: split brain or diverged; a person must choose.
    Diverged,
    /// 5: I/O error on a source or target.
    Io,
    /// 6: connecting, negotiation or authentication failed.
    Connect,
    /// 7: a time limit was reached.
    Timeout,
    /// 8: some legs or ranges failed, can be resumed.
    Partial,
    /// 9: a map, journal, record or delta is damaged or of another volume.
    Damaged,
    /// 70: a bug of ours.
    Internal,
    /// 75: busy, try again later.
    Busy,
}

impl Class {
    /// The exit status of this class.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Differs => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Diverged => 4,
            Self::Io => 5,
            Self::Connect => 6,
            Self::Timeout => 7,
            Self::Partial => 8,
            Self::Damaged => 9,
            Self::Internal => 70,
            Self::Busy => 75,
        }
    }

    /// The class of an exit status that one of our daemons sent over its control socket.
    pub const fn from_exit_code(code: u8) -> Self {
        match code {
            1 => Self::Differs,
            2 => Self::Usage,
            3 => Self::Refused,
            4 => Self::Diverged,
            5 => Self::Io,
            6 => Self::Connect,
            7 => Self::Timeout,
            8 => Self::Partial,
            9 => Self::Damaged,
            75 => Self::Busy,
            _ => Self::Internal,
        }
    }
}

/// A failure: its class, one line for a person (`object: what was being done: cause`), and, where there is
/// one, the command that gets out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Decides the exit status.
    pub class: Class,
    /// `object: what was being done: cause`, without the tool's name and without a newline.
    pub message: String,
    /// A command to type next; printed as a second line beginning `try:`.
    pub hint: Option<String>,
}

/// The result of everything in the library that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `class` with the line a person reads.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None }
    }

    /// An operating system failure on `object` while `doing`.
    pub fn io(object: impl fmt::Display, doing: &str, cause: impl Into<std::io::Error>) -> Self {
        Self::new(Class::Io, format!("{object}: {doing}: {}", plain(&cause.into())))
    }

    /// The same with another class.
    pub fn os(
        class: Class,
        object: impl fmt::Display,
        doing: &str,
        cause: impl Into<std::io::Error>,
    ) -> Self {
        Self::new(class, format!("{object}: {doing}: {}", plain(&cause.into())))
    }

    /// An answer that is the exit status alone ([`Class::Differs`]), or a reader who has gone away: nothing is
    /// told.
    pub const fn silent(class: Class) -> Self {
        Self { class, message: String::new(), hint: None }
    }

    /// The same error with the command that gets out of it.
    #[must_use]
    pub fn hint(mut self, command: impl Into<String>) -> Self {
        self.hint = Some(command.into());
        self
    }
}

/// The text of an operating system error without Rust's "(os error N)".
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_survive_the_control_socket() {
        for class in [
            Class::Differs,
            Class::Usage,
            Class::Refused,
            Class::Diverged,
            Class::Io,
            Class::Connect,
            Class::Timeout,
            Class::Partial,
            Class::Damaged,
            Class::Internal,
            Class::Busy,
        ] {
            assert_eq!(Class::from_exit_code(class.exit_code()), class);
        }
    }

    #[test]
    fn operating_system_errors_read_as_one_plain_line() {
        let error = Error::io("/dev/x", "opening", std::io::Error::from_raw_os_error(2));
        assert_eq!(error.to_string(), "/dev/x: opening: No such file or directory");
    }
}
