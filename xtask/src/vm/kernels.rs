//! The distribution's own kernels: fetched once, unpacked, reduced to what a guest needs.
//!
//! Works through an apt configuration of its own that never touches /etc/apt; the mirror is the one
//! that this machine already uses. A kernel that is in the cache is used without the network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::{setup, shell};

/// Where one kernel comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    /// Our name for it.
    pub(crate) label: &'static str,
    /// Debian's suite.
    suite: &'static str,
}

/// Every kernel that a full run boots: the oldest that is supported, and the newest two.
pub(crate) const SOURCES: &[Source] = &[
    Source { label: "6.1", suite: "bookworm" },
    Source { label: "6.12", suite: "trixie" },
    Source { label: "newest", suite: "trixie-backports" },
];

/// The metapackage that names a suite's current cloud kernel.
const META: &str = "linux-image-cloud-amd64";

/// Modules that guests load, with what they depend on. A kernel has them built in, as modules, or
/// not at all.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "overlay",
    "loop",
    "xfs",
    "veth",
    "tun",
    "fuse",
    "af_packet_diag",
    "sch_ingress",
    "cls_bpf",
    "nf_tables",
    "nft_fwd_netdev",
    "unix_diag",
];

/// A kernel on disk.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Its label.
    pub(crate) label: &'static str,
    /// `uname -r`.
    pub(crate) version: String,
    folder: PathBuf,
}

impl Kernel {
    /// The bootable image.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// A tree with `lib/modules/VERSION`, indexed, nothing compressed.
    pub(crate) fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }
}

/// From the clone's cache, the user's cache, or the mirror.
pub(crate) fn obtain(root: &Path, source: Source) -> anyhow::Result<Kernel> {
    let folder =
        setup::cache().unwrap_or_else(|| root.join("target/vm")).join("kernels").join(source.label);
    if let Some(kernel) = open(&folder, source.label) {
        return Ok(kernel);
    }
    let parent = folder.parent().context("the cache has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let work = parent.join(format!("{}.{}", source.label, std::process::id()));
    let result = fetch(source, &work).and_then(|()| {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::rename(work.join("ready"), &folder).context("place the kernel")
    });
    // Half a kernel is of no use to anybody.
    let _ = fs::remove_dir_all(&work);
    result.with_context(|| format!("fetch the {} kernel", source.label))?;
    open(&folder, source.label).context("the fetched kernel is complete")
}

fn open(folder: &Path, label: &'static str) -> Option<Kernel> {
    let version = fs::read_to_string(folder.join("version")).ok()?.trim().to_owned();
    // One that was reduced for other needs is fetched again.
    if fs::read_to_string(folder.join("wanted")).ok()? != MODULES.join(" ") {
        return None;
    }
    let kernel = Kernel { label, version, folder: folder.to_owned() };
    let index = kernel.modules().join("lib/modules").join(&kernel.version).join("modules.dep");
    (kernel.image().is_file() && index.is_file()).then_some(kernel)
}

/// Leaves `work/ready` behind.
fn fetch(source: Source, work: &Path) -> anyhow::Result<()> {
    eprintln!("fetching Debian's {} cloud kernel ({})", source.label, source.suite);
    let apt = Apt::prepare(source.suite, work)?;
    let image = apt.dependency(META, "linux-image-")?;
    // Newer packages are split; the image is then an empty one that names its parts.
    let mut packages = vec![image.clone()];
    if let Ok(binary) = apt.dependency(&image, "linux-binary-") {
        packages = vec![binary, apt.dependency(&image, "linux-modules-")?];
    }
    let unpacked = apt.unpack(&packages)?;

    let ready = work.join("ready");
    fs::create_dir_all(&ready)?;
    let (image, version) = find_image(&unpacked)?;
    fs::copy(image, ready.join("vmlinuz"))?;
    fs::write(ready.join("version"), &version)?;
    fs::write(ready.join("wanted"), MODULES.join(" "))?;
    reduce_modules(&unpacked, &version, &ready.join("modules"))
}

/// The bootable image and its version: in boot/, or beside its modules in newer packages.
fn find_image(unpacked: &Path) -> anyhow::Result<(PathBuf, String)> {
    for name in names(&unpacked.join("boot")).unwrap_or_default() {
        if let Some(version) = name.strip_prefix("vmlinuz-") {
            return Ok((unpacked.join("boot").join(&name), version.to_owned()));
        }
    }
    let modules = unpacked.join("usr/lib/modules");
    names(&modules)?
        .into_iter()
        .map(|version| (modules.join(&version).join("vmlinuz"), version))
        .find(|(image, _)| image.is_file())
        .context("the packages hold no vmlinuz")
}

/// Copy the wanted modules and what they depend on, uncompressed, and index them.
fn reduce_modules(unpacked: &Path, version: &str, to: &Path) -> anyhow::Result<()> {
    // Since Debian's /usr merge the modules are below usr/lib in newer packages.
    let base = if unpacked.join("usr/lib/modules").is_dir() {
        unpacked.join("usr")
    } else {
        unpacked.to_owned()
    };
    let tree = base.join("lib/modules").join(version);
    let depmod = shell::require("depmod")?;
    // Newer packages have these lists in a third part; without them depmod only warns.
    let lists = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];
    for list in lists.map(|list| tree.join(list)) {
        fs::OpenOptions::new().create(true).append(true).open(&list)?;
    }
    shell::quiet(Command::new(&depmod).arg("-b").arg(&base).arg(version))?;
    let index = fs::read_to_string(tree.join("modules.dep")).context("read modules.dep")?;
    let target = to.join("lib/modules").join(version);
    for module in closure(&index, MODULES) {
        let from = tree.join(module);
        let copy = target.join(module.trim_end_matches(".xz"));
        fs::create_dir_all(copy.parent().context("a module lies in a folder")?)?;
        if module.ends_with(".xz") {
            let file = fs::File::create(&copy)?;
            shell::quiet(Command::new(shell::require("xz")?).arg("-dc").arg(from).stdout(file))?;
        } else {
            fs::copy(from, copy)?;
        }
    }
    for list in lists {
        fs::copy(tree.join(list), target.join(list))?;
    }
    shell::quiet(Command::new(depmod).arg("-b").arg(to).arg(version))
}

/// The wanted modules of a modules.dep(5), and everything that their lines name.
fn closure<'a>(index: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let mut files = Vec::new();
    for line in index.lines() {
        let Some((module, needs)) = line.split_once(':') else { continue };
        let name = module.rsplit('/').next().unwrap_or(module);
        let name = name.split(".ko").next().unwrap_or(name).replace('-', "_");
        if wanted.contains(&name.as_str()) {
            files.push(module);
            files.extend(needs.split_whitespace());
        }
    }
    files.sort_unstable();
    files.dedup();
    files
}

/// One suite's package lists, in a folder of their own.
struct Apt {
    options: Vec<String>,
    work: PathBuf,
}

impl Apt {
    fn prepare(suite: &str, work: &Path) -> anyhow::Result<Self> {
        let work = fs::canonicalize({
            fs::create_dir_all(work)?;
            work
        })?;
        for folder in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(work.join(folder))?;
        }
        let list = work.join("sources.list");
        fs::write(&list, format!("deb {}{} {suite} main\n", keyring(), mirror()?))?;
        let at = |key: &str, path: &Path| format!("-o{key}={}", path.display());
        let options = vec![
            at("Dir::Etc::sourcelist", &list),
            at("Dir::State::lists", &work.join("lists")),
            at("Dir::Cache", &work.join("cache")),
            "-oDir::Etc::sourceparts=/dev/null".into(),
            "-oDir::Etc::preferences=/dev/null".into(),
            "-oDir::Etc::preferencesparts=/dev/null".into(),
            "-oAcquire::Languages=none".into(),
            "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "-oAPT::Sandbox::User=".into(),
            "-oAPT::Get::List-Cleanup=false".into(),
        ];
        let apt = Self { options, work };
        shell::quiet(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).env("LC_ALL", "C").current_dir(self.work.join("debs"));
        command
    }

    /// The dependency of a package whose name starts so.
    fn dependency(&self, package: &str, prefix: &str) -> anyhow::Result<String> {
        let fields =
            shell::output(self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        fields
            .lines()
            .find_map(|line| line.strip_prefix("Depends: "))
            .into_iter()
            .flat_map(|line| line.split(&[',', '|']))
            .filter_map(|dependency| dependency.split_whitespace().next())
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on no {prefix}*"))
    }

    fn unpack(&self, packages: &[String]) -> anyhow::Result<PathBuf> {
        shell::quiet(self.command("apt-get").args(["-qq", "download"]).args(packages))?;
        let unpacked = self.work.join("unpacked");
        for deb in names(&self.work.join("debs"))? {
            let deb = self.work.join("debs").join(deb);
            shell::quiet(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unpacked))?;
        }
        Ok(unpacked)
    }
}

/// The Debian archive that this machine's own lists name, the security archive apart.
fn mirror() -> anyhow::Result<String> {
    // ORIGIN is known only after an update; the address of the archive always is.
    let format = "$(ORIGIN) $(REPO_URI)";
    let targets =
        shell::output(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    let archives = targets.lines().filter_map(|line| {
        let (origin, archive) = line.split_once(' ')?;
        let archive = archive.trim_end_matches('/');
        let ours = origin == "Debian" || archive.ends_with("/debian");
        (ours && !archive.ends_with("-security")).then(|| archive.to_owned())
    });
    let known = archives.into_iter().next();
    match known {
        Some(archive) => Ok(archive),
        None => bail!("no Debian archive in this machine's apt lists (apt-get update?)"),
    }
}

/// Debian's own key where it lies at its usual place; apt's default keys otherwise.
fn keyring() -> &'static str {
    if Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").exists() {
        "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    } else {
        ""
    }
}

fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    Ok(entries
        .filter_map(Result::ok)
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_modules_bring_their_dependencies() {
        let index = "kernel/fs/xfs/xfs.ko.xz: kernel/lib/libcrc32c.ko.xz\n\
                     kernel/lib/libcrc32c.ko.xz:\n\
                     kernel/net/sched/cls-bpf.ko:\n\
                     kernel/fs/nfs/nfs.ko: kernel/fs/lockd.ko\n";
        assert_eq!(
            closure(index, &["xfs", "cls_bpf", "absent"]),
            [
                "kernel/fs/xfs/xfs.ko.xz",
                "kernel/lib/libcrc32c.ko.xz",
                "kernel/net/sched/cls-bpf.ko"
            ]
        );
        assert!(closure("", &["xfs"]).is_empty());
    }
}
