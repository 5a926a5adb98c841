//! The container tools of Debian 13, in a folder that is made when it is first asked for (`.ci/debian13`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::Error;
use crate::oracle::{run_ok, tool};

/// How long packages may take to come; usually ten seconds.
const PATIENCE: Duration = Duration::from_secs(400);

/// Where [`Debian13::command`] shows the folder it is given.
pub const SITE: &str = "/site";

/// Goes into the folder `$1`, in which `$2` can be seen; the rest is the command. All mounts belong to a namespace of
/// their own and end with it. Nothing is written to the folder itself.
const ENTER: &str = "T=$1 S=$2; shift 2
mount --rbind \"$T\" \"$T\"
mount --bind \"$S\" \"$T/site\"
mount -t proc none \"$T/proc\"
mount --rbind /sys \"$T/sys\"
umount \"$T/sys/fs/cgroup/unified\" 2>/dev/null || true
mount --rbind /dev \"$T/dev\"
for dir in tmp run root var/tmp var/cache var/lib; do mount -t tmpfs none \"$T/$dir\"; done
mount -o remount,bind,ro \"$T\"
exec chroot \"$T\" \"$@\"";

/// podman 5.4, skopeo 1.18 and what they need.
#[derive(Debug, Clone)]
pub struct Debian13 {
    folder: PathBuf,
}

impl Debian13 {
    /// Where they are. The first call makes the folder, beside what cargo builds, unless that was done before.
    ///
    /// # Errors
    /// The packages cannot be had.
    pub fn new() -> Result<Self, Error> {
        static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let made = MADE.get_or_init(|| make().map_err(|error| error.to_string()));
        match made {
            Ok(folder) => Ok(Debian13 { folder: folder.clone() }),
            Err(error) => Err(Error::data("Debian 13", error.clone())),
        }
    }

    /// `program`, to be run there, with `site` as [`SITE`]; all its processes end with it. It sees the network and the
    /// kernel of this machine, and has its variables.
    ///
    /// # Errors
    /// A missing program.
    pub fn command(&self, program: &str, site: &Path) -> Result<Command, Error> {
        let mut command = Command::new(tool("unshare")?);
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
        command.args(["sh", "-ec", ENTER, "sh"]).arg(&self.folder).arg(site).arg(program);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root").env("TMPDIR", "/var/tmp");
        for name in ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "REGISTRY_AUTH_FILE", "CONTAINERS_STORAGE_CONF"] {
            command.env_remove(name);
        }
        command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
        Ok(command)
    }
}

fn make() -> Result<PathBuf, Error> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/debian13");
    let program = std::env::current_exe().map_err(|e| Error::io(Path::new("this program"), e))?;
    // Tests are built as DIR/PROFILE/deps/NAME.
    let target = program.ancestors().nth(3).ok_or_else(|| Error::data("this program", "has no folder"))?;
    let folder = target.join("debian13");
    run_ok(Command::new(script).arg(&folder), PATIENCE)?;
    Ok(folder)
}
