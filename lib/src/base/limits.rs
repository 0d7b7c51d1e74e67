//! Every bound of the toolkit, each with its reason. A number that limits something lives here and nowhere
//! else; the code that enforces it names it.

/// Longest name of a volume, leg or tracker in bytes: fits a file name with a suffix, and an NBD export name.
pub const NAME_LEN: usize = 64;

/// Smallest map block: one disk block; below it the map costs more than the copy.
pub const BLOCK_MIN: u64 = 4096;
/// Largest map block: 32 MiB is the largest payload every NBD server must take.
pub const BLOCK_MAX: u64 = 32 << 20;

/// Most legs of one volume (a record holds four generations for each peer in 4 KiB).
pub const LEGS: usize = 32;

/// Most trackers of one volume: each costs every first write to a block a mark.
pub const TRACKERS: usize = 16;

/// Largest volume: 2^60 bytes, so that no sum of an offset and a length comes near 64 bits.
pub const VOLUME_SIZE: u64 = 1 << 60;

/// Largest payload of one NBD request that the server takes: what a cautious client may send (specification,
/// "Size constraints"), and what libnbd and qemu use.
pub const NBD_PAYLOAD: u32 = 32 << 20;
/// Largest payload that is still drained before the request is refused; beyond it the connection is closed.
pub const NBD_DRAIN: u32 = 128 << 20;
/// Most bytes that one step of TRIM or `WRITE_ZEROES` covers, which may be asked for more than any leg does within
/// its deadline: what a client without extended headers can ask for at all.
pub const NBD_EFFECT: u64 = 1 << 32;
/// Longest string of the protocol (specification: MUST be at most 4096 bytes).
pub const NBD_STRING: usize = 4096;
/// Most data of one option: the longest legal ones are a name and a few queries.
pub const NBD_OPTION_LEN: u32 = 64 << 10;
/// Most options in one handshake: `nbdinfo --list` on a hundred exports sends a few hundred.
pub const NBD_OPTIONS: u32 = 4096;
/// Most option data of one handshake that is read only to be thrown away, all options together; past it the
/// connection is closed. What qemu takes for one option.
pub const NBD_OPTION_DRAIN: u64 = 32 << 20;
/// Most unsent bytes of handshake replies before another option closes the connection: a client waits for the
/// reply to one option before it sends the next, so only one that never reads comes here. All [`CLIENTS`] of them
/// together hold 64 MiB.
pub const NBD_OPTION_OUT: usize = 256 << 10;
/// Longest handshake in milliseconds, either side.
pub const NBD_HANDSHAKE_MS: u64 = 10_000;
/// Most replies of one kind that our client takes during the handshake from one option.
pub const NBD_REPLIES: u32 = 4096;
/// Most bytes of a handshake that our client takes: a loop that serves others reads them in one go. A thousand contexts
/// with the longest names.
pub const NBD_HEARD: u64 = 4 << 20;
/// Most metadata contexts of one connection: base:allocation and one for each leg and tracker.
pub const NBD_CONTEXTS: usize = LEGS + TRACKERS + 1;
/// Most queries in one `LIST` or `SET_META_CONTEXT` option.
pub const NBD_QUERIES: u32 = 128;
/// Most extents in one reply to `BLOCK_STATUS`.
pub const NBD_EXTENTS: usize = 4096;

/// Most extents our client takes in one reply to `BLOCK_STATUS`: the specification's advice to servers, and what
/// nbdkit may send.
pub const NBD_EXTENTS_IN: usize = 1 << 20;
/// Most data of one error chunk: a string, its error and its offset, and room for types not yet invented.
pub const NBD_ERROR_CHUNK: u32 = 8 << 10;
/// Most separate pieces of one structured read that our client keeps track of: chunks in ascending order melt
/// into one, so only a server that scatters them comes here.
pub const NBD_FRAGMENTS: usize = 1024;

/// Connections that wait to be accepted, of one listener.
pub const BACKLOG: i32 = 128;
/// Seconds without traffic before TCP asks whether the other side still lives, seconds between its questions,
/// and unanswered questions before it is dead: half a minute, within a cron job's patience.
pub const KEEPALIVE: (u64, u64, u32) = (15, 5, 3);
/// Longest time, in microseconds, for which a loop without much to do asks before it sleeps: what a wake-up costs,
/// many times over.
pub const SPIN_US: u64 = 100;
/// The same if nobody says anything: two wake-ups and the work between them.
pub const SPIN_DEFAULT_US: u64 = 20;
/// What a Unix socket to a server holds, in bytes: a large request, and those behind it.
pub const UNIX_SEND_BUFFER: usize = 2 << 20;
/// Longest wait, in milliseconds, for another process that is just opening a listener in the same directory.
pub const LISTEN_WAIT_MS: u64 = 2_000;

/// What a TLS tunnel holds at most of each: received and not decrypted, decrypted and not delivered, taken and not
/// encrypted, encrypted and not sent. Four of the largest records.
pub const TLS_BUFFER: usize = 64 << 10;
/// Most TLS tunnels of the clients of one daemon, each a thread: one for each, and those that are just ending.
pub const TLS_TUNNELS: usize = 2 * CLIENTS;
/// Most TLS tunnels to its legs: one for each, and those that are just ending.
pub const TLS_LEG_TUNNELS: usize = 4 * LEGS;
/// When its near side is closed, a TLS tunnel has so long to send what it holds, in milliseconds.
pub const TLS_CLOSE_MS: u64 = 10_000;
/// And when that is sent, the other side has so long to say goodbye, in milliseconds.
pub const TLS_GOODBYE_MS: u64 = 1_000;
/// Largest file of certificates or of a key: hundreds of certificates, or a long list of revoked ones.
pub const TLS_FILE: u64 = 4 << 20;

/// Most client connections of one volume. When all are taken, a new one takes the place of the oldest whose
/// handshake is not over.
pub const CLIENTS: usize = 256;
/// Most requests in flight for one client connection; past it its socket is not read.
pub const CLIENT_REQUESTS: usize = 256;
/// Most bytes of payload in flight for one client connection; past it its socket is not read. Two of the
/// largest requests.
pub const CLIENT_BYTES: usize = 2 * NBD_PAYLOAD as usize;
/// Most bytes of payload in flight for the whole volume, replies that were not read included. A client gets no more
/// than it leaves to all others, so that a few that never read cannot take everything.
pub const VOLUME_BYTES: usize = 128 << 20;
/// Most requests under way in the whole volume: the set of ranges in flight is searched from end to end.
pub const VOLUME_REQUESTS: usize = 1024;
/// Bytes of payload that each client may have in flight whatever others hold: all of them together stay small
/// against [`VOLUME_BYTES`].
pub const CLIENT_SHARE: usize = 128 << 10;
/// Requests that each client may have in flight whatever others have.
pub const CLIENT_SHARE_REQUESTS: usize = 16;
/// A client that is owed bytes, or owes some, and takes or sends too few for so long, in milliseconds, is dropped if
/// others wait for the room that it holds.
pub const STANDSTILL_MS: u64 = 5_000;
/// Too few are less than this part of what it holds: a byte now and then must not keep all the room for ever. Who has
/// as much in flight as one may is then asked for 7 Mbit/s, who has 1 MiB for 100 kbit/s.
pub const STANDSTILL_PART: usize = 16;
/// Connections accepted in one round of the loop of one listener, so that a flood of them leaves time for others.
pub const ACCEPTS: usize = 32;

/// Most bytes of payload buffers that are kept for the next request while nobody uses them; with those in use
/// under 256 MiB in all.
pub const POOL_IDLE: usize = 32 << 20;
/// With so many bytes of buffers in use a small write is copied out of the buffer that it was received into: that may
/// be 256 KiB long, and each write may keep one alive until the slowest leg has it.
pub const POOL_CROWDED: usize = 64 << 20;

/// Most bytes of one copy of a resync.
pub const COPY_LEN: u64 = 1 << 20;
/// Most copies in flight for one leg.
pub const COPIES: usize = 8;
/// Most looks of a verify in flight, each [`COPY_LEN`] of every leg: with 32 legs 128 MiB.
pub const LOOKS: usize = 4;
/// Looks in flight while it yields to clients.
pub const LOOKS_YIELDING: usize = 1;
/// How long a barrier holds writes at most unless something else is asked for, in milliseconds: a snapshot takes less,
/// and no client gives up before.
pub const BARRIER_MS: u64 = 10_000;
/// The longest that can be asked for, in milliseconds: a guest's disk driver gives up after minutes.
pub const BARRIER_MAX_MS: u64 = 600_000;
/// Most ranges that a verify lists: past it a person repairs, and does not read on.
pub const VERIFY_RANGES: usize = 256;
/// After so many client writes that went past a copy of a block, client writes to it wait for the copy.
pub const COPY_BYPASSES: u8 = 3;

/// The volume flushes a leg by itself when its oldest unflushed write is so old, in milliseconds.
pub const SELF_FLUSH_MS: u64 = 5_000;
/// Or when so many bytes were written to it since its last flush.
pub const SELF_FLUSH_BYTES: u64 = 64 << 20;

/// Durability `power`: a run of a map that no write has marked for so long cools, in milliseconds. Random writes to
/// 64 GiB come back to each of its 16384 runs sooner; a crash widens the maps by what was written in the time before.
pub const COOL_MS: u64 = 30_000;

/// How long blocks of a leg stay held after a connection died with writes unresolved, in milliseconds: the far
/// server may still execute them.
pub const HOLD_MS: u64 = 3_000;

/// Default of a leg's `timeout=`, in milliseconds: the longest a request to it may stay unanswered.
pub const LEG_TIMEOUT_MS: u64 = 15_000;
/// Default of a leg's `retries=`: attempts to reach it again, or to repeat a failed request, before it leaves.
pub const LEG_RETRIES: u32 = 3;
/// Addresses of one leg: each may cost its whole time-out before the next one is tried, so that more of them would
/// only delay the moment at which somebody is told.
pub const LEG_ADDRESSES: usize = 4;
/// Blocks by which a server is compared with what the leg is known to hold: recent ones, and as many anywhere. At the
/// usual 64 KiB a block that is 3 MiB a connection.
pub const VOUCH_BLOCKS: usize = 24;
/// Bytes of a block that are compared at most: maps with large blocks must not make connecting slow.
pub const VOUCH_BYTES: u64 = 256 << 10;
/// Longest wait for another leg to be compared with, in milliseconds: at a start local ones are open long before.
pub const VOUCH_WAIT_MS: u64 = 2_000;
/// First pause before a leg is connected again, in milliseconds; doubled each time.
pub const RECONNECT_MIN_MS: u64 = 100;
/// Longest pause before a leg is connected again, in milliseconds.
pub const RECONNECT_MAX_MS: u64 = 5_000;
/// Unknown or repeated replies of one leg before it is dropped.
pub const STRAY_REPLIES: u32 = 16;

/// Longest line on the control socket, either way.
pub const CONTROL_LINE: usize = 1 << 20;
/// Most words of 64 blocks in one page of marks: in hexadecimal an eighth of a line, and a volume of 16 TiB in
/// blocks of 64 KiB is at most 512 pages.
pub const CONTROL_WORDS: usize = 8192;
/// Most ranges in one request.
pub const CONTROL_RANGES: usize = 4096;
/// Most connections to the control socket.
pub const CONTROL_CLIENTS: usize = 64;
/// Events kept for `mirrord events`.
pub const EVENTS: usize = 1024;
/// A flush may take so many times as long as any other request: it waits for a whole cache.
pub const FLUSH_PATIENCE: u64 = 8;
/// Pause after a copy that failed, in milliseconds.
pub const COPY_PAUSE_MS: u64 = 1_000;
/// A resync yields to clients that asked within the last so many milliseconds.
pub const YIELD_MS: u64 = 100;
/// Copies in flight for one leg while it yields.
pub const COPIES_YIELDING: usize = 2;
/// A resync whose requests to a leg stay unanswered for so long, in milliseconds, is called stalled: before the
/// leg's own deadline ends its connection.
pub const STALL_MS: u64 = 5_000;
/// It is called so until it has moved again for this long, in milliseconds: a word that comes and goes every
/// second says nothing.
pub const STALL_CALM_MS: u64 = 2_000;
/// Highest `rate=` of a leg, in bytes a second: more than any network or disk, and its products fit 64 bits.
pub const RATE_MAX: u64 = 1 << 40;
/// Pause before a step that goes on by itself (the removal of a replaced leg) is tried again, in milliseconds.
pub const TASK_RETRY_MS: u64 = 10_000;
/// Pause before a state that could not be made durable is tried again, in milliseconds.
pub const PERSIST_RETRY_MS: u64 = 1_000;
/// At the end, replies are sent for so long at most, in milliseconds.
pub const LINGER_MS: u64 = 1_000;
/// Longest clean stop, in milliseconds; what is not flushed by then stays marked.
pub const STOP_MS: u64 = 60_000;

/// Longest path of a Unix socket in bytes: `sun_path` has 108 with its final zero (unix(7)).
pub const UNIX_PATH: usize = 107;
/// Longest text of one LEG or DEVICE: longer than any path (`PATH_MAX`) or string of the protocol.
pub const DEVICE_TEXT: usize = 4096;
/// Largest configuration file: hundreds of volumes fit; what is larger is not a configuration.
pub const CONFIG_FILE: u64 = 4 << 20;
/// Most listeners of one volume.
pub const LISTENERS: usize = 16;
/// Longest a control command may stay unanswered, in milliseconds: longer than a leg's whole deadline.
pub const CONTROL_REPLY_MS: u64 = 60_000;
/// Most clients that are given metrics at a time: one Prometheus, its replacement, and a person.
pub const METRICS_CLIENTS: usize = 8;
/// Longest that a client of the metrics may take from its connection to its last byte, in milliseconds.
pub const METRICS_CLIENT_MS: u64 = 5_000;
/// Longest request for metrics, in bytes.
pub const METRICS_REQUEST: usize = 8 << 10;
/// The metrics file is written so often, in milliseconds: how often Prometheus usually asks.
pub const METRICS_FILE_MS: u64 = 15_000;
/// And after the start so soon for the first time, in milliseconds.
pub const METRICS_FIRST_MS: u64 = 500;
/// Most events that wait for the command of `--on-event`.
pub const HOOK_EVENTS: usize = 64;
/// Longest run of that command, in milliseconds; then it is killed with all that it started.
pub const HOOK_MS: u64 = 30_000;
/// So often it is looked whether it has ended, in milliseconds.
pub const HOOK_LOOK_MS: u64 = 20;
/// At the end of the daemon it is waited for so long, in milliseconds.
pub const HOOK_LINGER_MS: u64 = 5_000;

/// Longest that `mirrord check` waits for an answer, in milliseconds: monitoring systems give a plugin ten seconds.
pub const CHECK_REPLY_MS: u64 = 8_000;
/// Longest `timeout=` of a leg, in milliseconds: a day.
pub const LEG_TIMEOUT_MAX_MS: u64 = 86_400_000;
/// Most `retries=` of a leg: attempts of one request are counted in a byte.
pub const LEG_RETRIES_MAX: u32 = 100;

/// Most separate ranges of a foreign map: 256 MiB of memory.
pub const MAP_RUNS: usize = 1 << 24;
/// Most bytes of text that is read as a foreign map: [`MAP_RUNS`] lines of it.
pub const MAP_TEXT: u64 = 1 << 30;
/// Longest line of a foreign map that has lines.
pub const MAP_LINE: usize = 4096;
/// Largest frame of a log, an index or a dump: the extended attributes of one file fit (xfs takes 64 KiB for
/// each of them; those of one file together are bounded by this), and a reader never allocates more.
pub const FSLOG_FRAME: usize = 4 << 20;
/// Most bytes of data in one frame of a dump.
pub const FSLOG_CHUNK: usize = 1 << 20;
/// Most entries of a directory, or blocks of a file, in one frame of an index.
pub const FSLOG_BATCH: usize = 8192;
/// A file's content is compared in blocks of so many bytes: a 1 TiB file costs 320 MiB of index at 128 KiB.
pub const CONTENT_BLOCK: u64 = 128 << 10;
/// Most ranges of one file in a log; past it the smallest gaps close, so that a log is bounded by its inodes.
pub const FSLOG_RANGES: usize = 4096;
/// Longest name of a directory entry (`NAME_MAX`).
pub const FILE_NAME: usize = 255;
/// Longest text of a symbolic link (`PATH_MAX`).
pub const LINK_TEXT: usize = 4096;
/// Longest identity of an inode: a file handle (`MAX_HANDLE_SZ`) with its type.
pub const FILE_HANDLE: usize = 136;
/// Largest size of a file that is taken from a dump: that of a volume.
pub const FILE_SIZE: u64 = VOLUME_SIZE;
/// Most levels of directories in a tree that is taken from a dump: deeper ones cannot be made by usual programs.
pub const TREE_DEPTH: usize = 1 << 16;
/// Bytes of one path handed to the kernel at once (`PATH_MAX` is 4096 with its final zero).
pub const PATH_PIECE: usize = 3840;
/// Indexes of unacknowledged rounds that a source keeps; past it the oldest goes, and a full dump is owed.
pub const ROUNDS_KEPT: usize = 16;
/// An inode changed so many nanoseconds before a scan began, or later, is looked at again by the next one: the
/// kernel stamps times with the granularity of its clock tick (10 ms at 100 Hz).
pub const CLOCK_TICK_NS: i64 = 20_000_000;
/// Most symbolic links on the way of one path, as in the kernel (`MAXSYMLINKS`).
pub const WALK_LINKS: u32 = 40;
/// Calls of so many threads are remembered until they were seen to end; then those that ended are looked for.
pub const CALLS_UNDER_WAY: usize = 4096;
/// How often the processes of a command are listed until a list has nobody new: more start faster than that only if
/// somebody means it.
pub const PROCESS_LISTS: usize = 16;
/// A call at which so many recorders died is let go on unseen.
pub const CALL_ATTEMPTS: u32 = 3;
/// The pause before a recorder is replaced that lived less than a second.
pub const RECORDER_PAUSE_MS: u64 = 100;
/// Bytes of events read at once: some thousands of them.
pub const FANOTIFY_READ: usize = 256 << 10;
/// Bytes of accesses that wait, read at once: each opens a file, and some dozens of these are no burden.
pub const RANGES_READ: usize = 4096;
/// The process that notes accesses is killed if it does not come round for so long: nobody who accesses a marked file
/// waits longer. Longer than a busy machine lets a process wait for a processor.
pub const RANGES_STALL_MS: u64 = 5000;
/// Most files that are marked: a mark keeps an inode in memory, of about 1 KiB.
pub const RANGES_FILES: usize = 16_384;
/// Most threads of one file of which the last access is kept; past it all of theirs count as lasting.
pub const RANGES_THREADS: usize = 1024;
/// An access that nobody sees the end of counts as under way for so long, and a generation: three times as long as
/// Linux takes to give up a request to a disk (30 s, five times repeated), and more.
pub const RANGES_LASTING_MS: u64 = 600_000;
/// Most generations within that time that are kept apart; past it the oldest are taken together.
pub const RANGES_GENERATIONS: usize = 16;
/// Longest answer of the process that notes accesses: all ranges of hundreds of files.
pub const RANGES_ANSWER: usize = 256 << 20;
/// What is read of a file of `/proc` about a thread.
pub const RANGES_TEXT: u64 = 16 << 10;
/// Marked files that are looked whether they are gone, at the end of each generation.
pub const RANGES_SWEEP: usize = 64;
/// Most bytes of the log of one round while it is recorded; past it a scan is owed rather than a full disk.
pub const LIVE_LOG: u64 = 256 << 20;
/// A recorder that has not answered within so many milliseconds counts as dead: it has at most a queue of events
/// to empty before it does.
pub const RECORDER_REPLY_MS: u64 = 20_000;
/// Longest command of a stream of `btrfs send`: the kernel's buffer for one is 64 KiB, with compressed data 144 KiB.
pub const SENT_COMMAND: usize = 256 << 10;
/// Longest extent that a command of it has in packed form (`BTRFS_MAX_COMPRESSED` unpacked).
pub const SENT_EXTENT: usize = 128 << 10;
/// Most pieces of files that the clones of one stream of btrfs send make beyond one for each of its commands, some 50 bytes
/// of memory each: a clone of a file onto its own end doubles its pieces, so that forty commands could ask for any number.
pub const SENT_PIECES: usize = 1 << 22;
/// Snapshots of rounds that no standby has acknowledged yet; past it the oldest goes, and a scan is owed. They hold on
/// to the space of what was overwritten since.
pub const SNAPSHOTS_KEPT: usize = 4;
/// Longest line that a recorder is asked or answers with.
pub const RECORDER_LINE: usize = 4096;

/// Largest payload of one frame between the two ends of a copy: a few requests of this size fill a long link.
pub const REMOTE_PAYLOAD: u32 = 4 << 20;
/// Most requests in flight between the two ends of a copy; past it the far end does not read.
pub const REMOTE_REQUESTS: usize = 64;
/// Most bytes of payload in flight between the two ends of a copy, both ways together.
pub const REMOTE_BYTES: usize = 64 << 20;
/// Most devices and trees that one connection holds open.
pub const REMOTE_OBJECTS: usize = 16;
/// Longest path, and longest text of an error, between the two ends of a copy (`PATH_MAX`).
pub const REMOTE_TEXT: usize = 4096;
/// Most bytes of a device whose digests are asked for at once: a second or two of hashing.
pub const REMOTE_DIGEST: u64 = 4 << 30;
/// Most bytes that the far side may say before its hello, such as a greeting of a login shell, which are told.
pub const REMOTE_CHATTER: usize = 512;
/// Longest wait for the hello of the far end, in milliseconds: a login there may take its time.
pub const REMOTE_HELLO_MS: u64 = 30_000;
/// A side that has said nothing for so long, in milliseconds, says that it lives.
pub const REMOTE_PING_MS: u64 = 10_000;
/// A side that has heard nothing for so long, in milliseconds, gives the connection up.
pub const REMOTE_SILENCE_MS: u64 = 45_000;
/// Longest wait, in milliseconds, for the answer to a request that reads or writes.
pub const REMOTE_ANSWER_MS: u64 = 120_000;
/// Longest wait for the answer to a request that goes through a whole cache or device, in milliseconds.
pub const REMOTE_LONG_MS: u64 = 1_800_000;
/// Longest wait for the answer to a request that goes through a whole tree, in milliseconds: a day.
pub const REMOTE_TREE_MS: u64 = 86_400_000;
/// Most requests in flight, and most connections, of one copy: each may be a thread with a buffer of its own.
pub const SYNC_DEPTH: usize = 128;
/// Most bytes of data in one record of a delta, and in its packed form.
pub const DELTA_RECORD: usize = 4 << 20;
