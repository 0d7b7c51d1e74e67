//! Running a program to its end, within a limit.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No run of a program in a test takes longer, unless it says so.
const LIMIT: Duration = Duration::from_secs(60);

/// A program about to be run.
pub struct Tool {
    command: Command,
    input: Vec<u8>,
    limit: Duration,
}

/// How it ended.
#[derive(Debug)]
pub struct Output {
    /// The exit status; 128 and the number for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a program of the system.
pub fn run(program: &str, args: &[&str]) -> Output {
    Tool::new(program).args(args).run()
}

impl Tool {
    /// A program without arguments, in a clean environment.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env_remove("MIRROR_STATE_DIR").env_remove("STATE_DIRECTORY").env("LC_ALL", "C.UTF-8");
        Self { command, input: Vec::new(), limit: LIMIT }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: &[S]) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs in this directory.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Gives it this on standard input.
    pub fn input(mut self, bytes: &[u8]) -> Self {
        bytes.clone_into(&mut self.input);
        self
    }

    /// Lets it run so long.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The command itself, for what is not offered here.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        self.run_into(Stdio::piped())
    }

    /// Runs it to its end with this as standard output; [`Output::stdout`] is empty unless it is a pipe.
    pub fn run_into(mut self, stdout: Stdio) -> Output {
        use std::os::unix::process::ExitStatusExt as _;
        let shown = format!("{:?}", self.command);
        self.command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));
        let mut stdin = child.stdin.take().expect("stdin");
        let input = std::mem::take(&mut self.input);
        // A program that does not read its input is no failure of the test.
        let writer = std::thread::spawn(move || stdin.write_all(&input).is_ok());
        let stdout = child.stdout.take().map(drain);
        let stderr = drain(child.stderr.take().expect("stderr"));
        let status = wait(&mut child, self.limit).unwrap_or_else(|| {
            child.kill().expect("kill");
            child.wait().expect("reap");
            panic!("{shown}: still running after {:?}", self.limit)
        });
        writer.join().expect("writer");
        Output {
            code: status.code().unwrap_or_else(|| 128 + status.signal().expect("signal")),
            stdout: stdout.map_or_else(String::new, |thread| thread.join().expect("stdout")),
            stderr: stderr.join().expect("stderr"),
        }
    }
}

impl Output {
    /// Checks the exit status; shows everything when it is another.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Checks that it failed as `cli.md` says: this status, nothing on standard output, exactly one line on
    /// standard error that begins with the tool and holds `why`, and perhaps one `try:` line.
    #[track_caller]
    pub fn fails(self, tool: &str, code: i32, why: &str) -> Self {
        let this = self.expect(code);
        assert_eq!(this.stdout, "", "stderr: {}", this.stderr);
        let lines: Vec<_> = this.stderr.lines().collect();
        assert!(matches!(lines.len(), 1 | 2), "{}", this.stderr);
        assert!(lines[0].starts_with(&format!("{tool}: ")), "{}", this.stderr);
        assert!(lines[0].contains(why), "expected '{why}' in: {}", this.stderr);
        assert!(lines.get(1).is_none_or(|line| line.starts_with("try: ")), "{}", this.stderr);
        this
    }
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("reading a program's output");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for a child until the limit.
pub fn wait(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return Some(status);
        }
        let passed = begun.elapsed();
        if passed >= limit {
            return None;
        }
        // Programs are timed by this, too: what it adds is small against how long they ran.
        std::thread::sleep((passed / 64).clamp(Duration::from_micros(100), Duration::from_millis(5)));
    }
}
