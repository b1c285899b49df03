//! Users and capabilities: how a process that root started becomes somebody who can do less.

use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};
use std::io;

/// A user that a process can become.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    uid: Uid,
    gid: Gid,
}

impl Identity {
    /// Finds the user that `NAME`, `UID`, `NAME:GROUP` or `UID:GID` names; `None` if this process is that user already.
    pub fn find(spec: &str) -> Result<Option<Self>, Failure> {
        let (user, group) = match spec.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (spec, None),
        };
        let unknown = |kind: &str, name: &str| {
            Failure::new(ExitCode::Config, format!("there is no {kind} {name}")).hint(
                "name another with --user or `user` in [serve]: NAME, UID, NAME:GROUP or UID:GID",
            )
        };
        let known = match user.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(user),
        };
        let known = known.or_fail(ExitCode::System, || format!("cannot look up user {user}"))?;
        let uid = match (&known, user.parse()) {
            (Some(known), _) => known.uid,
            (None, Ok(uid)) => Uid::from_raw(uid),
            (None, Err(_)) => return Err(unknown("user", user)),
        };
        let gid = match (group, &known) {
            (Some(group), _) => match group.parse() {
                Ok(gid) => Gid::from_raw(gid),
                Err(_) => {
                    Group::from_name(group)
                        .or_fail(ExitCode::System, || format!("cannot look up group {group}"))?
                        .ok_or_else(|| unknown("group", group))?
                        .gid
                }
            },
            (None, Some(known)) => known.gid,
            (None, None) => {
                return Err(unknown("user", user).hint("name its group, too: --user UID:GID"));
            }
        };
        if uid == Uid::effective() && gid == Gid::effective() {
            return Ok(None);
        }
        if !Uid::effective().is_root() {
            let message = format!("only root can run processes as {spec}");
            return Err(Failure::new(ExitCode::NoPermission, message)
                .hint("start wrun as that user, or leave out --user and `user` in [serve]"));
        }
        Ok(Some(Self { uid, gid }))
    }

    /// Returns its user id.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// Returns the id of its group.
    pub fn gid(&self) -> Gid {
        self.gid
    }

    /// Becomes this user, for good. The groups of the one before are left behind, too.
    pub(super) fn assume(&self) -> io::Result<()> {
        empty_bounding_set()?;
        setgroups(&[self.gid])?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        Ok(())
    }
}

/// The capabilities that a process keeps, if it has them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    Nothing,
    /// That of root to read what is not its own.
    Reading,
}

/// Drops capabilities, for good. Without any, root is a user like others, who owns the system's files.
pub(super) fn drop_capabilities(kept: Kept) -> io::Result<()> {
    let had = capabilities(None)?;
    empty_bounding_set()?;
    if let Err(error) = clear_ambient_capability_set()
        && error != rustix::io::Errno::INVAL
    {
        return Err(error.into());
    }
    let wanted = match kept {
        Kept::Nothing => CapabilitySet::empty(),
        Kept::Reading => CapabilitySet::DAC_READ_SEARCH,
    };
    let sets = CapabilitySets {
        effective: had.effective & wanted,
        permitted: had.permitted & wanted,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// Keeps a process, and whatever it may run, from ever having a capability again. Only who has capabilities can, or needs
/// to.
fn empty_bounding_set() -> io::Result<()> {
    if !capabilities(None)?
        .effective
        .contains(CapabilitySet::SETPCAP)
    {
        return Ok(());
    }
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel knows no more.
            Err(error) if error.raw_os_error() == Errno::EINVAL as i32 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_that_there_is_not_is_a_failure_that_names_the_flag() {
        for spec in [
            "nobody-is-called-so",
            "root:nobody-is-called-so",
            "4000000001",
        ] {
            let failure = Identity::find(spec).unwrap_err();
            let hint = failure.hint.unwrap();
            assert!(hint.contains("--user"), "{spec}: {hint}");
        }
    }

    #[test]
    fn own_user_is_no_other_one() {
        let own = format!("{}:{}", Uid::effective(), Gid::effective());
        assert_eq!(Identity::find(&own).unwrap(), None);
    }

    #[test]
    fn ids_need_no_entry_among_the_users() {
        let found = Identity::find("4000000001:4000000002");
        if Uid::effective().is_root() {
            let found = found.unwrap().unwrap();
            assert_eq!(
                (found.uid.as_raw(), found.gid.as_raw()),
                (4_000_000_001, 4_000_000_002)
            );
        } else {
            assert_eq!(found.unwrap_err().code, ExitCode::NoPermission);
        }
    }
}
