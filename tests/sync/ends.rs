//! The ends of a copy by themselves: what a server over several connections may be believed.

use crate::support::{Dir, nbdkit, need, wait_for};
use mirror::base::Class;
use mirror::sync::ends::NbdEnd;
use mirror::sync::{End as _, Opening};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Hands connections on to a server, and keeps a hand on each.
fn proxy(at: &Path, to: &Path) -> Arc<Mutex<Vec<UnixStream>>> {
    let listener = UnixListener::bind(at).expect("bind");
    let (to, all) = (to.to_owned(), Arc::new(Mutex::new(Vec::new())));
    let hands = Arc::clone(&all);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, UnixStream::connect(&to)) else { return };
            hands.lock().expect("lock").push(client.try_clone().expect("clone"));
            for (mut from, mut to) in
                [(client.try_clone().expect("clone"), server.try_clone().expect("clone")), (server, client)]
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    all
}

#[test]
fn a_flush_is_not_believed_once_one_of_several_connections_has_gone() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (kit, front) = (dir.path("kit.sock"), dir.path("front.sock"));
    let image = dir.image("image", 1 << 20);
    let _kit = nbdkit(&dir, &kit, &["file", &image.to_string_lossy()]);
    let hands = proxy(&front, &kit);
    let uri = format!("nbd+unix:///?socket={}", front.display());
    let opening = Opening { write: true, mounted: false, live: false, connections: 3, depth: 4 };
    let end = NbdEnd::open(&uri, opening).expect("open");
    let write = |count: u64| (0..count).for_each(|n| end.write(n * 512, &[7; 512]).expect("write"));
    write(20);
    end.flush().expect("flush");
    assert_eq!(hands.lock().expect("lock").len(), 1, "little work is not worth a second one");
    write(1100);
    assert_eq!(hands.lock().expect("lock").len(), 2);
    end.flush().expect("both live");
    write(10);
    // What it had acknowledged may have been in a cache of its own.
    hands.lock().expect("lock")[1].shutdown(Shutdown::Both).expect("cut");
    wait_for("the loss", Duration::from_secs(20), || end.gone().is_some());
    assert_eq!(end.flush().expect_err("a connection has gone").class, Class::Connect);
    assert!(end.write(0, &[7; 512]).is_err(), "nothing more is written either");
}
