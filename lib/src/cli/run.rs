//! From an error to an exit status: one line `tool: message`, perhaps a second line `try: command`.

use super::{output, parse};
use crate::base::{Class, Error, error::plain};
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

/// The whole life of a program: reads the command line, runs `body`, says what went wrong.
pub fn main<T: clap::Parser>(tool: &'static str, body: impl FnOnce(T) -> anyhow::Result<()>) -> ExitCode {
    main_with(tool, std::env::args_os().collect(), body)
}

/// The same with words that were prepared: the first is the program's own name.
pub fn main_with<T: clap::Parser>(
    tool: &'static str,
    words: Vec<std::ffi::OsString>,
    body: impl FnOnce(T) -> anyhow::Result<()>,
) -> ExitCode {
    catch_panics(tool, Class::Internal.exit_code());
    match parse::parse_from::<T>(tool, words) {
        Ok(args) => run(tool, || body(args)),
        Err(code) => code,
    }
}

/// Runs `body` and turns its end into an exit status. A broken pipe is silence.
pub fn run(tool: &str, body: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    let Err(error) = body().and_then(|()| Ok(std::io::stdout().flush()?)) else {
        return ExitCode::SUCCESS;
    };
    match classify(error) {
        None => ExitCode::SUCCESS,
        Some(error) if error.message.is_empty() => match error.class {
            Class::Differs => ExitCode::from(Class::Differs.exit_code()),
            _ => ExitCode::SUCCESS,
        },
        Some(error) => fail(tool, &error),
    }
}

/// The error that is told; `None` for a broken pipe.
fn classify(error: anyhow::Error) -> Option<Error> {
    match error.downcast::<Error>() {
        Ok(error) => Some(error),
        Err(error) => match error.downcast::<std::io::Error>() {
            Ok(error) if error.kind() == ErrorKind::BrokenPipe => None,
            Ok(error) => Some(Error::new(Class::Io, format!("standard output: writing: {}", plain(&error)))),
            Err(error) => Some(Error::new(Class::Internal, format!("{error:#}"))),
        },
    }
}

/// Tells an error on standard error.
pub fn fail(tool: &str, error: &Error) -> ExitCode {
    let hint =
        error.hint.as_ref().map_or_else(String::new, |hint| format!("try: {}\n", output::one_line(hint)));
    let text = format!("{tool}: {}\n{hint}", output::one_line(&error.message));
    output::tell(&text);
    ExitCode::from(error.class.exit_code())
}

/// A panic is a bug of ours: one line and this status, also where panics abort.
pub(super) fn catch_panics(tool: &'static str, status: u8) {
    std::panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown");
        let place = info.location().map_or_else(String::new, |l| format!(" ({}:{})", l.file(), l.line()));
        output::tell(&format!("{tool}: internal failure: {}{place}\n", output::one_line(text)));
        std::process::exit(i32::from(status));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_keeps_its_class_and_a_broken_pipe_is_silence() {
        let refused = Error::new(Class::Refused, "x");
        assert_eq!(classify(refused.clone().into()), Some(refused));
        assert_eq!(classify(std::io::Error::from(ErrorKind::BrokenPipe).into()), None);
        let full = classify(std::io::Error::from(ErrorKind::StorageFull).into()).expect("told");
        assert_eq!(full.class, Class::Io);
        assert_eq!(classify(anyhow::anyhow!("x")).expect("told").class, Class::Internal);
    }
}
