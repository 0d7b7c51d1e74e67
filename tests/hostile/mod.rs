//! Hostile peers: the numbered cases of the checklist, S against our server, C against our client. Those that a
//! parser alone can show are unit tests of `lib/src/nbd` under the same numbers; these are about the running daemon.

mod bounds; // memory and other clients' patience while somebody floods, stalls or never reads
mod copies; // C-cases: what mirror-sync and dirtymap make of servers that fail, stop, or come back as another
mod extended; // extended headers, both ways; C8, S30, S32
mod fake; // an NBD server that lies as a script tells it
mod holes; // what legs say of their holes; C9, C12, C18, C22
mod leg; // C-cases: such a server is a leg
mod leg_life; // C-cases: connections to it that end, come late, or come back as another
mod raw; // an NBD client without scruples
mod server; // S-cases: requests and replies
mod server_life; // S-cases: handshakes, connections, signals
mod tls;
mod tls_leg; // servers that have no TLS or are somebody else, and real ones as legs; C4, C5 // clients over TLS, before it, and around it; S11, S12, S29
