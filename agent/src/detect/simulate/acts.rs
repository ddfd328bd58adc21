//! What each simulation does: really what the model looks for, and harmless.
//!
//! Nothing is read, changed or sent that is somebody's; what is made is taken away by the stage.
//! Tools that could do harm are stood for by a copy of `true` under their name.

use std::io::IoSliceMut;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::SimulateError;
use super::stage::{COMMENT, Stage};

/// Longer than one round of the sensor's fallback, so that it too sees the socket.
const HELD: Duration = Duration::from_secs(6);
/// Long enough for a file to be seen before it is gone.
const SHOWN: Duration = Duration::from_secs(1);
/// A second list that sshd reads by default; without keys it lets nobody in.
pub(super) const KEYS: &str = "/root/.ssh/authorized_keys2";
/// Nobody.
const NOBODY: u32 = 65_534;

type Done = Result<String, SimulateError>;

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> SimulateError {
    move |error| SimulateError::Failed(what, error)
}

fn refused(what: &'static str) -> impl Fn(nix::Error) -> SimulateError {
    move |error| SimulateError::Failed(what, error.into())
}

pub(super) fn network_sniffing(stage: &mut Stage) -> Done {
    let all = SockProtocol::EthAll;
    let packet = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)
        .map_err(SimulateError::Socket)?;
    stage.pause(HELD);
    drop(packet);
    Ok("opened socket(AF_PACKET, SOCK_RAW, ETH_P_ALL), read nothing, closed it".to_owned())
}

pub(super) fn credential_files(stage: &mut Stage) -> Done {
    stage.run(Command::new("head").args(["-c", "1", "/etc/shadow"]))?;
    Ok("had head(1) read the first byte of /etc/shadow, and threw it away".to_owned())
}

pub(super) fn proc_filesystem(stage: &mut Stage) -> Done {
    let file = format!("/proc/{}/environ", std::process::id());
    stage.run(Command::new("head").args(["-c", "1", &file]))?;
    Ok(format!("had head(1) read the first byte of {file}, this command's own"))
}

pub(super) fn reverse_shell(stage: &mut Stage) -> Done {
    // Not 127.0.0.1, where scripts rightly ask for local services.
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).map_err(failed("listen"))?;
    let port = listener.local_addr().map_err(failed("listen"))?.port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.2/{port}; exec 3>&-; :");
    stage.run(Command::new("bash").args(["-c", &script]))?;
    Ok(format!("had bash connect to 127.0.0.2:{port}, where this command listened, and hang up"))
}

pub(super) fn web_shell(stage: &mut Stage) -> Done {
    let server = stage.copy_of("sh", "nginx")?;
    stage.run(Command::new(server).args(["-c", "id; whoami; :"]))?;
    Ok("had a copy of sh under the name nginx run id and whoami".to_owned())
}

fn shown_file(stage: &mut Stage, path: &Path) -> Done {
    stage.file(path, COMMENT)?;
    stage.pause(SHOWN);
    Ok(format!("wrote {} with a comment alone, and removed it", path.display()))
}

pub(super) fn cron(stage: &mut Stage) -> Done {
    let path = Path::new("/etc/cron.d").join(stage.name(""));
    shown_file(stage, &path)
}

pub(super) fn systemd_service(stage: &mut Stage) -> Done {
    let path = Path::new("/etc/systemd/system").join(stage.name(".service"));
    shown_file(stage, &path)
}

pub(super) fn ssh_authorized_keys(stage: &mut Stage) -> Done {
    shown_file(stage, Path::new(KEYS))
}

pub(super) fn shell_profile(stage: &mut Stage) -> Done {
    let path = Path::new("/etc/profile.d").join(stage.name(".sh"));
    shown_file(stage, &path)
}

pub(super) fn linker_hijacking(stage: &mut Stage) -> Done {
    let path = Path::new("/etc/ld.so.conf.d").join(stage.name(".conf"));
    let library = stage.folder()?.join("none.so");
    stage.run(Command::new("true").env("LD_PRELOAD", &library))?;
    let done = shown_file(stage, &path)?;
    Ok(format!("ran true(1) with LD_PRELOAD={}, which is not there; {done}", library.display()))
}

pub(super) fn kernel_module(stage: &mut Stage) -> Done {
    let loader = stage.stand_in("insmod")?;
    let module = stage.folder()?.join("holdfast-simulation.ko");
    stage.run(Command::new(loader).arg(&module))?;
    Ok("ran a copy of true under the name insmod with the name of a module".to_owned())
}

pub(super) fn rootkit(stage: &mut Stage) -> Done {
    let program = crate::sys::bpf_probe::load_nothing().map_err(failed("load an eBPF program"))?;
    stage.pause(Duration::from_millis(100));
    drop(program);
    Ok("loaded a raw tracepoint program that returns 0, attached it to nothing".to_owned())
}

pub(super) fn memfd_execution(stage: &mut Stage) -> Done {
    use std::io::Write;
    let program = stage.stand_in("holdfast-simulation")?;
    let content = std::fs::read(program).map_err(failed("read true"))?;
    let memory = rustix::fs::memfd_create("holdfast-simulation", rustix::fs::MemfdFlags::empty())
        .map_err(|error| SimulateError::Failed("make a memfd", error.into()))?;
    let mut memory = std::fs::File::from(memory);
    memory.write_all(&content).map_err(failed("write a memfd"))?;
    // Open for reading alone: a program that somebody writes cannot be run.
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    let reader = std::fs::File::open(&path).map_err(failed("open a memfd"))?;
    drop(memory);
    let path = format!("/proc/{}/fd/{}", std::process::id(), reader.as_raw_fd());
    stage.run(&mut Command::new(path))?;
    Ok("ran a copy of true from memory".to_owned())
}

/// A child that is ended whatever happens.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn process_injection(_stage: &mut Stage) -> Done {
    let mut command = Command::new("sleep");
    command.arg("60").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = Sleeper(command.spawn().map_err(failed("start sleep"))?);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.0.id()))
        .map_err(failed("read the child's maps"))?;
    let stack = maps.lines().find(|line| line.ends_with("[stack]"));
    let end = stack
        .and_then(|line| usize::from_str_radix(line.split(['-', ' ']).nth(1)?, 16).ok())
        .ok_or_else(|| SimulateError::Missing("the child's stack".to_owned()))?;
    let pid = Pid::from_raw(i32::try_from(child.0.id()).unwrap_or(i32::MAX));
    let place = [RemoteIoVec { base: end - 8, len: 8 }];
    let mut bytes = [0; 8];
    process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &place)
        .map_err(refused("read the child's memory"))?;
    process_vm_writev(pid, &[std::io::IoSlice::new(&bytes)], &place)
        .map_err(refused("write the child's memory"))?;
    Ok("wrote eight bytes of a child's stack, as they were, and ended the child".to_owned())
}

pub(super) fn setuid(stage: &mut Stage) -> Done {
    let program = stage.stand_in("raised")?;
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755))
        .map_err(failed("set the bit"))?;
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    stage.run(&mut command)?;
    Ok("ran a copy of true with the set-user-id bit as nobody".to_owned())
}

pub(super) fn clear_logs(stage: &mut Stage) -> Done {
    let path = Path::new("/var/log").join(stage.name(".log"));
    stage.file(&path, COMMENT)?;
    // The sensor learns of a new file before it can tell of its end.
    stage.pause(SHOWN);
    stage.run(Command::new("rm").arg(&path))?;
    Ok(format!("wrote {} and had rm(1) delete it", path.display()))
}

pub(super) fn clear_history(stage: &mut Stage) -> Done {
    stage.run(Command::new("sh").args(["-c", "unset HISTFILE; :"]))?;
    Ok("ran a shell that unsets HISTFILE and ends".to_owned())
}

pub(super) fn disable_tools(stage: &mut Stage) -> Done {
    let control = stage.stand_in("systemctl")?;
    stage.run(Command::new(control).args(["stop", "holdfast-simulation.service"]))?;
    Ok("ran a copy of true under the name systemctl: stop holdfast-simulation.service".to_owned())
}

pub(super) fn crypto_mining(stage: &mut Stage) -> Done {
    let miner = stage.stand_in("miner")?;
    let pool = "stratum+tcp://127.0.0.1:9";
    stage.run(Command::new(miner).args(["-o", pool, "--donate-level=1"]))?;
    // .invalid is nobody's (RFC 2606); no resolver asks anybody else for it.
    let question = dns_question("pool.minexmr.com.holdfast-simulation.invalid");
    if let Ok(sender) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
        // Whether anybody listens is of no interest.
        let _ = sender.send_to(&question, (Ipv4Addr::LOCALHOST, 53));
    }
    Ok("ran a copy of true with the options of a miner, and asked 127.0.0.1 for the name of a pool"
        .to_owned())
}

/// A question for an A record, RFC 1035.
fn dns_question(name: &str) -> Vec<u8> {
    let mut packet = vec![0x48, 0x66, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(0));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

pub(super) fn discovery(stage: &mut Stage) -> Done {
    let tools = "id; whoami; uname -a; hostname; ps; df; uptime; nproc; env; mount; arch; who; :";
    stage.run(Command::new("sh").args(["-c", tools]))?;
    Ok("had a shell run a dozen programs that tell about the host".to_owned())
}

pub(super) fn exfiltration(stage: &mut Stage) -> Done {
    let curl = stage.stand_in("curl")?;
    stage.run(Command::new(curl).args(["--upload-file", "/etc/hosts", "http://127.0.0.1:9/"]))?;
    Ok("ran a copy of true under the name curl, as if it sent /etc/hosts".to_owned())
}

pub(super) fn container_escape(stage: &mut Stage) -> Done {
    let enter = stage.stand_in("nsenter")?;
    stage.run(Command::new(enter).args(["-t", "1", "-m", "--", "true"]))?;
    Ok("ran a copy of true under the name nsenter, as if it entered pid 1".to_owned())
}

pub(super) fn ransomware(stage: &mut Stage) -> Done {
    const FILES: usize = 100;
    const SIZE: usize = 4096;
    /// Files that are younger than this are somebody's new ones.
    const OLD: Duration = Duration::from_secs(12);
    let folder = stage.folder()?;
    // One process that writes many files: `split` numbers them, and writes over those that are
    // there.
    let split = |from: &str| {
        let mut command = Command::new("split");
        command.args(["-a", "3", "-b", &SIZE.to_string()]).arg(folder.join(from));
        command.arg(folder.join("letter-"));
        command
    };
    let text = "What somebody wrote. ".repeat(FILES * SIZE / 20);
    std::fs::write(folder.join("text"), &text[..FILES * SIZE]).map_err(failed("write files"))?;
    let mut noise = vec![0; FILES * SIZE];
    let mut random = std::fs::File::open("/dev/urandom").map_err(failed("read random bytes"))?;
    random.read_exact(&mut noise).map_err(failed("read random bytes"))?;
    std::fs::write(folder.join("noise"), noise).map_err(failed("write files"))?;
    stage.run(&mut split("text"))?;
    stage.pause(OLD);
    stage.run(&mut split("noise"))?;
    stage.pause(SHOWN);
    Ok(format!("had one process write noise over {FILES} files of its own, and removed them"))
}
