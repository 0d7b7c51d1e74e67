//! What is asked of the daemon, and how it answers.

use crate::base::{Class, Error, Name, Result};

/// One request: one line of JSON whose key `request` names it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Is anybody there? Answered with ok and no value.
    Ping,
    /// The [`super::Status`] of the volume, as the value of the reply.
    Status,
    /// Events, one a line after the reply: those still kept, then new ones as they happen.
    Events {
        /// Only the present state, as events; then the daemon closes the connection.
        #[serde(default)]
        now: bool,
    },
    /// Changes the state of one leg.
    Leg {
        /// To what.
        action: LegAction,
        /// Which leg.
        leg: Name,
    },
    /// Copies what is missing to one leg, or to all that miss something.
    Resync {
        /// Which leg; all, if none is named.
        #[serde(default)]
        leg: Option<Name>,
        /// Everything counts as missing first.
        #[serde(default)]
        full: bool,
    },
    /// A new leg, with everything missing.
    LegAdd {
        /// The LEG of the command line, its path absolute.
        leg: String,
        /// The leg whose place it takes as soon as it is `UpToDate`.
        #[serde(default)]
        replaces: Option<Name>,
    },
    /// A leg is no member any more.
    LegRemove {
        /// Which leg.
        leg: Name,
    },
    /// Changes settings of a leg.
    LegSet {
        /// Which leg.
        leg: Name,
        /// `key=value` of the LEG grammar, and `device=`.
        set: Vec<String>,
    },
    /// The volume grows.
    Resize {
        /// To so many bytes; to the smallest leg, if none are named.
        #[serde(default)]
        size: Option<u64>,
    },
    /// Copies to a leg, or to all legs, wait until `resume`, or until the daemon ends.
    Pause {
        /// Which leg; all, if none is named.
        #[serde(default)]
        leg: Option<Name>,
    },
    /// They go on.
    Resume {
        /// Which leg; all, if none is named.
        #[serde(default)]
        leg: Option<Name>,
    },
    /// Makes, removes or rotates a tracker. [`TrackerAction::Take`] belongs to the connection that sent it: when
    /// that ends without a word, the marks go back.
    Tracker {
        /// What is done.
        action: TrackerAction,
        /// Which tracker.
        tracker: Name,
    },
    /// Of the marks that this connection took: these ranges, as (offset, length) in bytes, were copied and need not
    /// go back. Blocks that lie in a range only in part stay.
    Copied {
        /// Which tracker.
        tracker: Name,
        /// At most [`crate::base::limits::CONTROL_RANGES`].
        ranges: Vec<(u64, u64)>,
    },
    /// A page of the marks of a map, as the value of the reply ([`super::tracker::Page`]).
    Marks {
        /// Of which map.
        of: MapOf,
        /// The first word (of 64 blocks) that is wanted.
        first: u64,
    },
    /// Lets nothing be written, and flushes all legs; answered when that is so. It belongs to the connection that sent
    /// it: when that ends, or after the time that is named, writes go on.
    Barrier {
        /// Milliseconds, at most [`crate::base::limits::BARRIER_MAX_MS`].
        for_ms: u64,
    },
    /// Writes go on; an error of class `Timeout` if they did before.
    EndBarrier,
    /// Compares the legs in sync. Answered at the end, with a [`super::VerifyResult`]; it belongs to the connection
    /// that sent it: when that ends before, the verify ends.
    Verify {
        /// Only blocks in which this leg differs from another count.
        #[serde(default)]
        leg: Option<Name>,
        /// Blocks that differ are copied from this leg afterwards.
        #[serde(default)]
        repair_from: Option<Name>,
    },
    /// A clean stop, the same as SIGTERM.
    Stop,
}

/// What [`Request::Tracker`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrackerAction {
    /// From now on it marks what changes.
    Add,
    /// It is forgotten.
    Remove,
    /// Its marks are closed: they can be read and wait for a word, while it goes on with the blocks of every write
    /// in flight. Answered with `Busy` while another connection holds some.
    Take,
    /// Whoever took the marks has what it needs on stable storage: they are dropped.
    Confirm,
    /// They go back into the tracker.
    GiveBack,
}

/// The map that [`Request::Marks`] asks about.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapOf {
    /// What a leg misses.
    Leg(Name),
    /// What has changed, including what was taken and not confirmed.
    Tracker(Name),
    /// Only what this connection took.
    Taken(Name),
}

/// What [`Request::Leg`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LegAction {
    /// Take it out of the set; its map collects.
    Detach,
    /// Take it back; a resync follows.
    Attach,
    /// Treat it as failed at once, without waiting for its deadline.
    Fail,
    /// Forget what it holds, and its failures: everything is copied to it.
    Reset,
}

impl LegAction {
    /// The word of the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Detach => "detach",
            Self::Attach => "attach",
            Self::Fail => "fail",
            Self::Reset => "reset",
        }
    }
}

/// One answer: one line of JSON whose key `reply` is `ok` or `error`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// It was done.
    Ok {
        /// What was asked for; absent where nothing was.
        #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
        value: serde_json::Value,
    },
    /// It was not done.
    Error {
        /// The exit status of the class of the error.
        code: u8,
        /// One line for a person.
        message: String,
        /// The command that gets out of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

impl Reply {
    /// Ok without a value.
    pub const fn ok() -> Self {
        Self::Ok { value: serde_json::Value::Null }
    }

    /// Ok with a value.
    pub fn value<T: serde::Serialize>(value: &T) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => Self::Ok { value },
            Err(e) => Self::from(Error::new(Class::Internal, format!("control: writing a reply: {e}"))),
        }
    }

    /// The value, or the error as the daemon meant it, class and hint included.
    pub fn into_result(self) -> Result<serde_json::Value> {
        match self {
            Self::Ok { value } => Ok(value),
            Self::Error { code, message, hint } => {
                Err(Error { class: Class::from_exit_code(code), message: one_line(&message), hint })
            }
        }
    }
}

/// A daemon's text must not break the rule of one line for each error.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        Self::Error { code: error.class.exit_code(), message: error.message, hint: error.hint }
    }
}

impl From<Result<()>> for Reply {
    fn from(result: Result<()>) -> Self {
        result.map_or_else(Self::from, |()| Self::ok())
    }
}

/// One line of JSON with its newline, as both sides send it.
pub fn to_line<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)
        .map_err(|e| Error::new(Class::Internal, format!("control: writing a line: {e}")))?;
    line.push(b'\n');
    Ok(line)
}

/// Reads one line that a client sent.
pub fn from_line(line: &[u8]) -> Result<Request> {
    serde_json::from_slice(line)
        .map_err(|e| Error::new(Class::Usage, one_line(&format!("control: reading a request: {e}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_pinned_as_they_stand_on_the_wire() {
        let leg: Name = "far".parse().expect("name");
        for (request, line) in [
            (Request::Ping, r#"{"request":"ping"}"#),
            (Request::Status, r#"{"request":"status"}"#),
            (Request::Events { now: true }, r#"{"request":"events","now":true}"#),
            (
                Request::Leg { action: LegAction::Detach, leg: leg.clone() },
                r#"{"request":"leg","action":"detach","leg":"far"}"#,
            ),
            (
                Request::Tracker { action: TrackerAction::GiveBack, tracker: leg.clone() },
                r#"{"request":"tracker","action":"give-back","tracker":"far"}"#,
            ),
            (
                Request::Marks { of: MapOf::Taken(leg.clone()), first: 7 },
                r#"{"request":"marks","of":{"taken":"far"},"first":7}"#,
            ),
            (
                Request::Copied { tracker: leg.clone(), ranges: vec![(0, 65536)] },
                r#"{"request":"copied","tracker":"far","ranges":[[0,65536]]}"#,
            ),
            (
                Request::Resync { leg: Some(leg), full: false },
                r#"{"request":"resync","leg":"far","full":false}"#,
            ),
            (Request::Pause { leg: None }, r#"{"request":"pause","leg":null}"#),
            (
                Request::Verify { leg: None, repair_from: None },
                r#"{"request":"verify","leg":null,"repair_from":null}"#,
            ),
            (Request::Barrier { for_ms: 5 }, r#"{"request":"barrier","for_ms":5}"#),
            (Request::EndBarrier, r#"{"request":"end-barrier"}"#),
            (Request::Stop, r#"{"request":"stop"}"#),
        ] {
            assert_eq!(to_line(&request).expect("line"), format!("{line}\n").as_bytes());
            assert_eq!(from_line(line.as_bytes()).expect(line), request);
        }
        assert_eq!(
            from_line(br#"{"request":"resync"}"#).expect("defaults"),
            Request::Resync { leg: None, full: false }
        );
    }

    #[test]
    fn bad_requests_are_usage_errors_of_one_line() {
        let cases: [&[u8]; 6] = [
            b"",
            b"x\ny",
            br#"{"request":"dance"}"#,
            br#"{"request":"leg","action":"detach","leg":"../x"}"#,
            br#"{"request":"resync","fully":true}"#,
            b"[1]",
        ];
        for line in cases {
            let error = from_line(line).expect_err("refused");
            assert_eq!(error.class, Class::Usage);
            assert!(!error.message.contains('\n'), "{error}");
        }
    }

    #[test]
    fn errors_cross_the_socket_with_class_and_hint() {
        let error =
            Error::new(Class::Refused, "vol0: detaching far: it is the last copy").hint("mirrord status");
        let line = to_line(&Reply::from(error.clone())).expect("line");
        let reply: Reply = serde_json::from_slice(&line).expect("reply");
        assert_eq!(reply.into_result().expect_err("error"), error);
        assert_eq!(to_line(&Reply::ok()).expect("line"), b"{\"reply\":\"ok\"}\n");
    }
}
