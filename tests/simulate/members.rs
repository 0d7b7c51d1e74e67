//! Legs that are removed and added while the volume serves: what the driver does around the core.

use crate::leg::Session;
use crate::plan::LegPlan;
use crate::world::World;
use mirror::volume::core::{Command, LegConfig, LegRecord};

/// The core's view of a leg.
pub fn leg_config(leg: &LegPlan) -> LegConfig {
    LegConfig {
        remote: leg.remote,
        read: leg.read,
        flush_unsafe: false,
        timeout_ms: leg.timeout_ms,
        retries: leg.retries,
        rate: leg.rate,
    }
}

impl World<'_> {
    /// The volume has no such leg.
    pub fn is_gone(&self, leg: usize) -> bool {
        self.disk.legs[leg].gone
    }

    /// Removal, step 1: the core is asked to let it go durably.
    pub fn remove_leg(&mut self, leg: usize) {
        if self.core.is_none()
            || self.stopping.is_some()
            || self.is_gone(leg)
            || !self.served
            || self.grower.busy()
        {
            return;
        }
        self.command(Command::Retire(leg));
        self.retiring.insert(self.commands.1, leg);
    }

    /// The core has answered a command. If it was step 1 of a removal, `volume.toml` is written without the leg.
    pub fn removed(&mut self, id: u64, ok: bool) {
        let Some(leg) = self.retiring.remove(&id).filter(|leg| ok && !self.is_gone(*leg)) else { return };
        self.disk.legs[leg] = LegRecord { gone: true, ..LegRecord::default() };
        self.disk.left_at[leg] = None;
        self.maps[leg].bits.fill(true);
        self.maps[leg].told.fill(false);
        self.maps[leg].clean = true;
        self.maps[leg].late.clear();
        self.maps[leg].settle();
        self.command(Command::Forget(leg));
    }

    /// A leg comes where one went: its map and its record are made, then the core takes it in.
    pub fn add_leg(&mut self, leg: usize) {
        let busy = !self.plan.setup.legs[leg].remote && self.legs[leg].queued > 0;
        let known = self.core.as_ref().is_none_or(|core| core.leg_state(leg).is_some());
        if known || busy || !self.served || self.stopping.is_some() || !self.is_gone(leg) {
            return;
        }
        if self.legs[leg].session != Session::None || self.grower.busy() {
            return;
        }
        self.members[leg] += 1;
        self.disk.legs[leg] = LegRecord { inconsistent: true, ..LegRecord::default() };
        let map = &mut self.maps[leg];
        map.bits.fill(true);
        map.told.fill(true);
        (map.clean, map.boot) = (false, self.boot);
        map.settle();
        let config = leg_config(&self.plan.setup.legs[leg]);
        self.command(Command::Enlist { leg, config });
    }
}
