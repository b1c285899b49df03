//! Hosts of their own on one machine: network namespaces, joined by a bridge. The bridge is in a new namespace, too, so that
//! nothing touches the machine's network, and all of it is gone with the process.

use crate::guests::run;
use crate::launch::Launch;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::net::Ipv4Addr;
use std::process::Command;

/// The network of the hosts, for those that have to be told whom to serve.
pub const NETWORK: &str = "10.77.0.0/24";

/// Where this process is in it, with what it starts outside of a host.
pub const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The port of each host's server.
const PORT: u16 = 8080;

/// The hosts. They have numbers from 1 on.
#[derive(Debug)]
pub struct Hosts(());

impl Hosts {
    /// Leaves the machine's network for a new one with so many hosts. To be called before there is a second thread.
    ///
    /// # Errors
    ///
    /// If the process may not: that takes root, or CAP_SYS_ADMIN.
    ///
    /// # Panics
    ///
    /// If `ip` fails.
    pub fn new(count: u8) -> nix::Result<Self> {
        let nothing: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
        let ours = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, ours, nothing)?;
        // `ip netns` keeps the names of namespaces there.
        mount(
            Some("tmpfs"),
            "/run",
            Some("tmpfs"),
            MsFlags::empty(),
            nothing,
        )?;
        ip("link set lo up");
        ip("link add bridge type bridge");
        ip(&format!("addr add {HERE}/24 dev bridge"));
        ip("link set bridge up");
        for host in 1..=count {
            let name = name(host);
            ip(&format!("netns add {name}"));
            ip(&format!(
                "link add {name} type veth peer name eth0 netns {name}"
            ));
            ip(&format!("link set {name} master bridge up"));
            ip(&format!("-n {name} addr add {}/24 dev eth0", address(host)));
            ip(&format!("-n {name} link set eth0 up"));
            ip(&format!("-n {name} link set lo up"));
        }
        Ok(Self(()))
    }

    /// Has a server run on a host.
    pub fn on(&self, host: u8, launch: Launch) -> Launch {
        let name = name(host);
        launch
            .addr(format_args!("{}:{PORT}", address(host)))
            .through(["ip", "netns", "exec", &name])
    }

    /// Cuts a host off: nothing that it sends arrives any more, and nothing reaches it.
    pub fn cut(&self, host: u8) {
        ip(&format!("link set {} down", name(host)));
    }

    /// Joins it to the others again.
    pub fn join(&self, host: u8) {
        ip(&format!("link set {} up", name(host)));
    }
}

fn name(host: u8) -> String {
    format!("host{host}")
}

fn address(host: u8) -> Ipv4Addr {
    let [a, b, c, _] = HERE.octets();
    Ipv4Addr::new(a, b, c, 10 + host)
}

fn ip(words: &str) {
    run(Command::new("ip").args(words.split(' ')));
}
