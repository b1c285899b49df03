//! The sandbox, and the user: what a worker could do if somebody took it over.

use super::{Finding, Status};
use crate::config::sandbox::{self, Mode};
use crate::sandbox::{LANDLOCK_MIN, Sandbox, kernel};
use crate::supervisor::Trial;
use nix::unistd::Uid;

pub(super) fn look(settings: &sandbox::Sandbox) -> Vec<Finding> {
    let mut findings = vec![user(settings)];
    if settings.mode == Mode::Off {
        let finding = Finding::new("sandbox", Status::Off, "switched off");
        findings.push(finding.next("remove `sandbox = \"off\"` from [serve] in wrun.toml"));
    }
    // What there is, whether it is switched off or not.
    let tried = Sandbox::new(&sandbox::Sandbox {
        mode: Mode::Auto,
        ..settings.clone()
    })
    .and_then(|sandbox| Trial::run(&sandbox));
    let required = match settings.mode {
        Mode::Require => Status::Missing,
        Mode::Auto | Mode::Off => Status::Off,
    };
    match tried {
        Ok(trial) => findings.extend(layers(&trial, required)),
        Err(failure) => {
            let finding = Finding::new("sandbox", required, failure.message);
            findings.push(finding.next(failure.hint.unwrap_or_default()));
        }
    }
    findings
}

fn user(settings: &sandbox::Sandbox) -> Finding {
    match (&settings.user, Uid::effective()) {
        (Some(user), _) => Finding::new("user", Status::Ok, format!("workers run as {user}")),
        (None, uid) if uid.is_root() => {
            let finding = Finding::new("user", Status::Off, "root, and so would workers be");
            finding.next("start wrun as another user, or name one with --user or `user` in [serve]")
        }
        (None, uid) => Finding::new("user", Status::Ok, format!("uid {uid}, not root")),
    }
}

fn layers(trial: &Trial, required: Status) -> Vec<Finding> {
    let mut findings: Vec<Finding> = trial
        .layers
        .iter()
        .map(|layer| match layer.is_on {
            true => Finding::new(&layer.name, Status::Ok, &layer.detail),
            false => Finding::new(&layer.name, required, &layer.detail).next(next(&layer.name)),
        })
        .collect();
    findings.push(match trial.not_refused.as_slice() {
        [] => Finding::new(
            "tried",
            Status::Ok,
            "all that a worker must not do is refused",
        ),
        some => Finding::new(
            "tried",
            required,
            format!("not refused: {}", some.join(", ")),
        )
        .next("see the layers above"),
    });
    findings
}

fn next(layer: &str) -> String {
    match layer {
        "landlock" => {
            let wanted = "Linux 6.12 or newer with landlock among the modules of lsm=, and a container that permits it";
            match kernel::landlock_abi() {
                Ok(abi) if abi < LANDLOCK_MIN => {
                    "Linux 6.7 knows ports, 6.12 signals, too".to_owned()
                }
                _ => wanted.to_owned(),
            }
        }
        "seccomp" => "a kernel with CONFIG_SECCOMP_FILTER on x86-64 or arm64".to_owned(),
        _ => "see whether the container or the service manager forbids it".to_owned(),
    }
}
