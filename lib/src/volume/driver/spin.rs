//! Whether to ask the sockets for a while before sleeping.
//!
//! Where one request is under way at a time, two wake-ups are most of its latency; asking for some microseconds
//! saves them. Where nothing comes within them, as with a slow disk, a far leg or an idle client, the asking only
//! burns a processor: so after a few times in vain it pauses, longer each time, until something came of it again.
//! QEMU's event loops do alike (`poll-max-ns`, 32 microseconds).

/// In vain so many times in a row, and it pauses.
const IN_VAIN: u32 = 8;
/// The longest pause, in waits.
const LONGEST: u32 = 256;

/// What came of it lately.
#[derive(Debug, Default)]
pub(super) struct Patience {
    in_vain: u32,
    pause: u32,
    left: u32,
}

impl Patience {
    /// Whether to ask before this wait. To be asked once for each.
    pub(super) const fn is_worth_it(&mut self) -> bool {
        let worth_it = self.left == 0;
        self.left = self.left.saturating_sub(1);
        worth_it
    }

    /// Whether something came.
    pub(super) const fn learn(&mut self, came: bool) {
        if came {
            *self = Self { in_vain: 0, pause: 0, left: 0 };
            return;
        }
        self.in_vain += 1;
        if self.in_vain >= IN_VAIN {
            // One more try in vain after a pause doubles it.
            self.in_vain = IN_VAIN - 1;
            self.pause = if self.pause == 0 { IN_VAIN } else { self.pause * 2 };
            if self.pause > LONGEST {
                self.pause = LONGEST;
            }
            self.left = self.pause;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `waits` were preceded by asking, in vain.
    fn asked(patience: &mut Patience, waits: u32) -> u32 {
        let mut asked = 0;
        for _ in 0..waits {
            if patience.is_worth_it() {
                asked += 1;
                patience.learn(false);
            }
        }
        asked
    }

    #[test]
    fn asking_in_vain_becomes_rare_and_pays_again_at_once() {
        let mut patience = Patience::default();
        assert_eq!(asked(&mut patience, IN_VAIN), IN_VAIN, "always at first");
        assert_eq!(asked(&mut patience, IN_VAIN), 0, "then a pause");
        assert_eq!(asked(&mut patience, 1), 1, "one more try");
        assert_eq!(asked(&mut patience, 2 * IN_VAIN), 0, "a longer pause");
        assert!(asked(&mut patience, 100 * LONGEST) <= 105, "in the end one of 257");
        while !patience.is_worth_it() {}
        patience.learn(true);
        assert_eq!(asked(&mut patience, IN_VAIN), IN_VAIN, "it paid: always again");
    }
}
