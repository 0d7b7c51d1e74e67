//! `--rsh COMMAND`: a program of the user's own makes the connection, with everything that its configuration can.

use super::target::Target;
use super::{Ending, Link, failed, halves};
use crate::base::{Class, Error, Result};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

/// The words of a command, as a shell would take them without expanding anything: spaces separate, quotes keep
/// together.
pub fn split(text: &str) -> Result<Vec<String>> {
    let refuse =
        |why: &str| Error::new(Class::Usage, format!("--rsh {}: reading it: {why}", text.escape_debug()));
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => {
                let next = chars.next().ok_or_else(|| refuse("it ends with a backslash"))?;
                word.get_or_insert_default().push(next);
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(refuse("a quote is not closed"));
    }
    words.extend(word);
    if words.is_empty() { Err(refuse("it is empty")) } else { Ok(words) }
}

/// Everything that the program is started with: its words, where to go, what to run there.
pub fn arguments(target: &Target, rsh: &str, line: &str) -> Result<Vec<String>> {
    let mut words = split(rsh)?;
    if let Some(user) = &target.user {
        words.extend(["-l".to_owned(), user.clone()]);
    }
    if let Some(port) = target.port {
        words.extend(["-p".to_owned(), port.to_string()]);
    }
    words.extend([target.host.clone(), line.to_owned()]);
    Ok(words)
}

/// Starts it.
pub(super) fn open(target: &Target, rsh: &str, line: &str) -> Result<Link> {
    let words = arguments(target, rsh, line)?;
    let fail = |e| Error::os(Class::Connect, format_args!("--rsh {}", words[0]), "starting it", e);
    let (ours, theirs) = UnixStream::pair().map_err(fail)?;
    let input: OwnedFd = theirs.try_clone().map_err(fail)?.into();
    let output: OwnedFd = theirs.into();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(input).stdout(output).stderr(Stdio::piped());
    let child = command.spawn().map_err(fail)?;
    // With it the last copies of the socket's other end that this process has.
    drop(command);
    let ending = Ending::default();
    let told = ending.clone();
    let name = target.to_string();
    std::thread::Builder::new()
        .name("rsh".into())
        .spawn(move || reap(child, &told, &name))
        .map_err(|e| failed(target, "watching its program", e))?;
    let (reader, writer) = halves(ours).map_err(|e| failed(target, "making a socket", e))?;
    Ok(Link { reader, writer, ending })
}

/// Listens to what it complains about, and waits for its end. It ends when its input does, or dies with this
/// process's side of its socket.
fn reap(mut child: Child, ending: &Ending, name: &str) {
    let mut buf = [0; 1024];
    while let Some(stderr) = &mut child.stderr {
        match stderr.read(&mut buf) {
            Ok(len) if len > 0 => ending.said(&buf[..len]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    ending.over(match child.wait() {
        Ok(status) => Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))),
        Err(e) => Err(failed(name, "waiting for its program", e)),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        let words = |text| split(text).expect("words");
        assert_eq!(words("ssh"), ["ssh"]);
        assert_eq!(
            words("  ssh  -o 'Proxy Command=x y' \"a'b\" c\\ d"),
            ["ssh", "-o", "Proxy Command=x y", "a'b", "c d"]
        );
        assert_eq!(words("a '' $HOME;x"), ["a", "", "$HOME;x"]);
        for bad in ["", "  ", "a 'b", "a \"b", "a \\"] {
            assert_eq!(split(bad).expect_err(bad).class, Class::Usage);
        }
    }

    #[test]
    fn where_to_go_comes_before_what_to_run() {
        let target: Target = "ssh://me@far:2222/dev/vg/$(rm)".parse().expect("target");
        let found = arguments(&target, "ssh -4", "mirror-sync --serve").expect("arguments");
        assert_eq!(found, ["ssh", "-4", "-l", "me", "-p", "2222", "far", "mirror-sync --serve"]);
    }
}
