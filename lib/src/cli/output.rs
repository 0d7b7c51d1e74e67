//! Standard output carries data alone; standard error is for people.

use std::io::Write as _;

/// Writes lines of data to standard output. A broken pipe comes back as an error that [`super::run::run`]
/// turns into silence.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes one JSON document as one line of data.
pub fn print_json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    print(&text)?;
    Ok(())
}

/// Tells a person. Nobody reading is no reason to fail.
pub fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Text that may come from elsewhere, without what would break a line or drive a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
