//! Files and ports: Landlock, which confines a process by what it names.
//!
//! What the kernel's Landlock has no rule for yet, such as UDP before Linux 7.2, is for `filter` to refuse.

use super::kernel;
use super::{LANDLOCK_MIN, Needs, Role, names};
use ::landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope, make_bitflags,
};
use std::path::{Path, PathBuf};

/// What the rules below were written for. A kernel that knows less enforces what it knows.
const WRITTEN_FOR: ABI = ABI::V10;

/// To look into a folder, and to read the files beneath it.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

/// To do the same, and to make, change and remove files.
const WRITE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile});

/// Confines this thread, and those that it starts, to what `needs` names. Returns what is enforced.
pub(super) fn restrict(needs: &Needs) -> Result<String, String> {
    let abi = kernel::landlock_abi().map_err(|errno| match errno {
        nix::errno::Errno::ENOSYS => {
            "the kernel was built without it, or is older than 5.13".to_owned()
        }
        nix::errno::Errno::EOPNOTSUPP => {
            "it is switched off: add landlock to lsm= on the kernel's command line".to_owned()
        }
        errno => format!("the container does not permit it ({})", errno.desc()),
    })?;
    let status = enforce(needs).map_err(|error| error.to_string())?;
    if status == RulesetStatus::NotEnforced {
        return Err("the kernel does not enforce it".to_owned());
    }
    let what = match abi {
        ..LANDLOCK_MIN => {
            return Err(format!(
                "version {abi} confines files and not ports: Linux 6.7 has more"
            ));
        }
        LANDLOCK_MIN | 5 => "files and TCP ports; Linux 6.12 has signals, too",
        6..=8 => "files, TCP ports, signals",
        9 => "files, TCP ports, signals, Unix sockets",
        _ => "files, TCP and UDP ports, signals, Unix sockets",
    };
    Ok(format!("version {abi}: {what}"))
}

fn enforce(needs: &Needs) -> Result<RulesetStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WRITTEN_FOR))?
        .handle_access(AccessNet::from_all(WRITTEN_FOR))?
        .scope(Scope::from_all(WRITTEN_FOR))?
        .create()?;
    rules = allow(rules, &needs.read, READ)?;
    rules = allow(rules, &needs.write, WRITE)?;
    if needs.role == Role::State {
        // Whose child a peer is.
        rules = allow(rules, &[PathBuf::from("/proc")], AccessFs::ReadFile.into())?;
    }
    rules = allow(rules, &needs.sockets, AccessFs::ResolveUnix.into())?;
    for &port in &needs.ports {
        rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    if needs.resolves {
        // A question to DNS, and the answer to any port.
        rules = rules
            .add_rule(NetPort::new(names::PORT, AccessNet::ConnectSendUdp))?
            .add_rule(NetPort::new(0, AccessNet::BindUdp))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// Allows `access` beneath each of `paths` that is there.
fn allow(
    mut rules: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    for path in paths {
        if let Ok(open) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(open, that_fits(path, access)))?;
        }
    }
    Ok(rules)
}

/// Leaves out what has no meaning for a file.
fn that_fits(path: &Path, access: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    match path.is_dir() {
        true => access,
        false => access & AccessFs::from_file(WRITTEN_FOR),
    }
}
