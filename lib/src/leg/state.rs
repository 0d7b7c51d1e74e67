//! The words for states (design.md section 2): DRBD's where it has one. Text, JSON and man page use these and
//! no synonyms.

/// An enumeration whose values are words: one table for Display, `FromStr` and serde.
macro_rules! words {
    ($(#[$outer:meta])* $name:ident, $noun:literal { $($(#[$inner:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$inner])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word in text and JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::base::Error;

            fn from_str(text: &str) -> $crate::base::Result<Self> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|v| v.as_str()).collect();
                    $crate::base::Error::new(
                        $crate::base::Class::Usage,
                        format!("{}: reading {}: not one of {}", text.escape_default(), $noun, known.join(", ")),
                    )
                })
            }
        }
    };
}
pub(crate) use words;

words! {
    /// The disk state of one leg.
    DiskState, "a disk state" {
        /// Holds everything; may be read, and may be the source of a resync.
        UpToDate = "UpToDate",
        /// Consistent, an earlier moment; the journal has the rest.
        Behind = "Behind",
        /// A resync is copying to it.
        SyncTarget = "SyncTarget",
        /// Part old, part new: unusable until a resync finishes.
        Inconsistent = "Inconsistent",
        /// Consistent, but a newer copy is known.
        Outdated = "Outdated",
        /// Left the set because of its errors.
        Failed = "Failed",
        /// Taken out by the administrator.
        Detached = "Detached",
    }
}

words! {
    /// The connection to one leg.
    Connection, "a connection state" {
        /// Reachable; requests go to it.
        Connected = "Connected",
        /// Not reachable; tried again by itself.
        Connecting = "Connecting",
        /// Not reachable and not tried: a person must act.
        StandAlone = "StandAlone",
    }
}

words! {
    /// Who may write.
    Role, "a role" {
        /// Takes writes from clients.
        Primary = "primary",
        /// Takes writes from a primary only.
        Standby = "standby",
        /// Not known.
        Unknown = "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_read_back_as_they_print() {
        for state in DiskState::ALL {
            assert_eq!(state.to_string().parse::<DiskState>().expect("parse"), *state);
            assert_eq!(serde_json::to_string(state).expect("json"), format!("\"{state}\""));
        }
        assert_eq!("primary".parse::<Role>().expect("role"), Role::Primary);
        assert!("connected".parse::<Connection>().is_err());
    }
}
