//! ClamAV's on-access scanner, when it is installed: the field's peer.
//!
//! It gets a database with one signature, which is all that Holdfast has here too, and prevents
//! like Holdfast does.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_tests::until;
use tempfile::TempDir;

/// clamd and clamonacc, killed when dropped.
pub struct Clam {
    processes: Vec<Child>,
    _home: TempDir,
}

/// Why ClamAV cannot be compared with, if so.
pub fn missing() -> Option<&'static str> {
    ["/usr/sbin/clamd", "/usr/sbin/clamonacc"].into_iter().find(|file| !Path::new(file).exists())
}

impl Clam {
    /// Protects `path`; returns when an EICAR open there is denied.
    pub fn start(path: &Path) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("holdfast-clam-").tempdir()?;
        let socket = home.path().join("clamd.sock");
        let config = home.path().join("clamd.conf");
        let database = home.path().join("db");
        fs::create_dir(&database)?;
        // The MD5 and size of the EICAR file, in ClamAV's own format.
        fs::write(database.join("test.hdb"), "44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test\n")?;
        fs::write(
            &config,
            format!(
                "LocalSocket {}\nDatabaseDirectory {}\nForeground yes\nUser clamav\n\
                 OnAccessIncludePath {}\nOnAccessPrevention yes\nOnAccessExcludeUname clamav\n\
                 MaxThreads 4\nOnAccessMaxThreads 4\n",
                socket.display(),
                database.display(),
                path.display()
            ),
        )?;
        nix::unistd::chown(home.path(), user("clamav")?, None)?;
        make_readable(home.path())?;
        let mut new = Self { processes: Vec::new(), _home: home };
        new.spawn("/usr/sbin/clamd", &config, &[])?;
        until(Duration::from_secs(60), || UnixStream::connect(&socket).ok())
            .context("clamd did not open its socket")?;
        new.spawn("/usr/sbin/clamonacc", &config, &["--foreground", "--fdpass"])?;
        let bait = path.join("bait");
        fs::write(&bait, holdfast_tests::eicar())?;
        until(Duration::from_secs(60), || fs::File::open(&bait).err())
            .context("clamonacc never denied the EICAR file")?;
        fs::remove_file(&bait)?;
        Ok(new)
    }

    fn spawn(&mut self, program: &str, config: &Path, more: &[&str]) -> Result<()> {
        let child = Command::new(program)
            .arg("--config-file")
            .arg(config)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        self.processes.push(child);
        Ok(())
    }
}

fn user(name: &str) -> Result<Option<nix::unistd::Uid>> {
    Ok(nix::unistd::User::from_name(name)?.map(|user| user.uid))
}

fn make_readable(home: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).map_err(Into::into)
}

impl Drop for Clam {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
