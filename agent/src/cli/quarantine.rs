//! `holdfast quarantine`: list, show, restore, delete, export. Opening a raw container without
//! an agent is `unseal`'s.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use holdfast_common::container::Metadata;
use holdfast_common::control::{Reply, Request};
use uuid::Uuid;

use super::arguments::Quarantine;
use super::events::scan_type;
use super::text::{local_time, safe, size};
use super::unseal::unseal;
use super::{CliError, Session, parse_limit, unexpected};

pub(super) fn quarantine(session: &mut Session, command: Quarantine) -> Result<u8, CliError> {
    match command {
        Quarantine::List => list(session)?,
        Quarantine::Show { id } => show(session, &id)?,
        Quarantine::Restore { id, allow, limit, to } => restore(session, &id, allow, limit, to)?,
        Quarantine::Delete { id, yes } => return delete(session, &id, yes),
        Quarantine::Export { id, output, password } => export(session, &id, output, password)?,
        Quarantine::Unseal { container, key, output } => {
            return unseal(session, &container, &key, output);
        }
    }
    Ok(0)
}

fn list(session: &mut Session) -> Result<(), CliError> {
    let items = items(session, &Request::QuarantineList)?;
    if session.out.json {
        for item in &items {
            session.out.json(item)?;
        }
        return Ok(());
    }
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            vec![
                item.id.to_string(),
                local_time(item.sealed_ms),
                item.signature.name.clone(),
                size(item.file.size),
                item.path.clone(),
            ]
        })
        .collect();
    Ok(session.out.table(&["ID", "SEALED", "SIGNATURE", "SIZE", "PATH"], &rows)?)
}

fn items(session: &Session, request: &Request) -> Result<Vec<Metadata>, CliError> {
    let item = |reply| match reply {
        Reply::QuarantineItem(item) => Ok(*item),
        reply => Err(unexpected(&reply)),
    };
    session.all(request)?.into_iter().map(item).collect()
}

/// An id, or the beginning of one that fits one item alone.
fn resolve(session: &Session, text: &str) -> Result<Uuid, CliError> {
    if let Ok(id) = Uuid::try_parse(text) {
        return Ok(id);
    }
    let prefix = text.to_ascii_lowercase();
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(CliError::Usage(format!("{text:?} is no item id")));
    }
    let ids = items(session, &Request::QuarantineList)?.into_iter().map(|item| item.id);
    let fitting: Vec<_> = ids.filter(|id| id.to_string().starts_with(&prefix)).collect();
    match fitting.as_slice() {
        [id] => Ok(*id),
        [] => Err(CliError::Failed(format!("no item's id begins with {text}"))),
        [first, second, ..] => Err(CliError::Failed(format!(
            "{text} fits {} items, {first} and {second} among them",
            fitting.len()
        ))),
    }
}

fn show(session: &mut Session, id: &str) -> Result<(), CliError> {
    let id = resolve(session, id)?;
    for item in items(session, &Request::QuarantineShow { id })? {
        if session.out.json {
            session.out.json(&item)?;
        } else {
            print_item(session, &item)?;
        }
    }
    Ok(())
}

fn print_item(session: &mut Session, item: &Metadata) -> Result<(), CliError> {
    let file = &item.file;
    let mut facts = vec![
        ("id", item.id.to_string()),
        ("sealed", local_time(item.sealed_ms)),
        ("path", item.path.clone()),
        ("signature", format!("{} ({:?})", item.signature.name, item.signature.engine)),
        ("found", scan_type(item.scan_type).into()),
        ("size", format!("{} ({} bytes)", size(file.size), file.size)),
        ("owner", format!("uid {} gid {} mode {:04o}", file.uid, file.gid, file.mode & 0o7777)),
        ("modified", local_time(file.modified_ms)),
        ("changed", local_time(file.changed_ms)),
        ("links", item.links.to_string()),
        ("attributes", format!("{} extended", item.xattrs.len())),
        ("sha256", item.hashes.sha256.clone()),
        ("sha1", item.hashes.sha1.clone()),
        ("md5", item.hashes.md5.clone()),
    ];
    if let Some(process) = &item.process {
        facts.push(("process", format!("{} pid {}", process.exe, process.key.pid)));
        facts.push(("command", process.command_line()));
        facts.push(("user", process.user.clone()));
    }
    for (name, value) in facts {
        session.out.line(&format!("{name:<10}  {}", safe(&value)))?;
    }
    Ok(())
}

fn restore(
    session: &mut Session,
    id: &str,
    allow: bool,
    limit: Option<String>,
    to: Option<PathBuf>,
) -> Result<(), CliError> {
    let id = resolve(session, id)?;
    let absolute = |path: PathBuf| {
        std::path::absolute(&path)
            .map_err(|error| CliError::Usage(format!("--to {}: {error}", path.display())))
    };
    let to = to.map(absolute).transpose()?;
    let duration_s = limit.as_deref().map(parse_limit).transpose()?;
    for reply in session.all(&Request::QuarantineRestore { id, allow, duration_s, to })? {
        let Reply::Restored { path, allowed, until_ms } = &reply else {
            return Err(unexpected(&reply));
        };
        if session.out.json {
            let answer = serde_json::json!({
                "id": id, "path": path, "allowed": allowed, "until_ms": until_ms,
            });
            session.out.json(&answer)?;
            continue;
        }
        let note = match (allowed, until_ms) {
            (true, Some(until_ms)) => {
                format!("its content is allowed until {}", local_time(*until_ms))
            }
            (true, None) => "its content is allowed from now on".to_owned(),
            (false, _) => "it will be detected again; --allow prevents that".to_owned(),
        };
        session.out.line(&format!("Restored {} ({note}).", safe(path)))?;
    }
    Ok(())
}

fn delete(session: &mut Session, id: &str, yes: bool) -> Result<u8, CliError> {
    let id = resolve(session, id)?;
    if !yes {
        if !io::stdin().is_terminal() {
            return Err(CliError::Usage("delete is for good: add --yes".into()));
        }
        let shown = items(session, &Request::QuarantineShow { id })?;
        let path = shown.first().map_or("", |item| &item.path);
        eprint!("Delete {id} ({}) for good? [y/N] ", safe(path));
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            eprintln!("Nothing was deleted.");
            return Ok(1);
        }
    }
    session.all(&Request::QuarantineDelete { id })?;
    if session.out.json {
        session.out.json(&serde_json::json!({ "id": id, "deleted": true }))?;
    } else {
        session.out.line(&format!("Deleted {id}."))?;
    }
    Ok(0)
}

fn export(
    session: &mut Session,
    id: &str,
    output: Option<PathBuf>,
    password: String,
) -> Result<(), CliError> {
    if password.is_empty() {
        return Err(CliError::Usage("--password: an empty one does not encrypt".into()));
    }
    let id = resolve(session, id)?;
    let path = output.unwrap_or_else(|| PathBuf::from(format!("{id}.zip")));
    // Made before the agent is asked, so that it does not work for nothing.
    let mut file = NewFile::create(&path)?;
    let mut client = session.ask(&Request::QuarantineExport { id, password: password.clone() })?;
    let mut bytes = None;
    while let Some(reply) = client.next_reply()? {
        let Reply::Data { length } = reply else { return Err(unexpected(&reply)) };
        client.copy_data(length, &mut file.file)?.map_err(|error| file.failed(&error))?;
        bytes = Some(bytes.unwrap_or(0) + length);
    }
    let Some(bytes) = bytes else {
        return Err(CliError::Failed("the agent sent no content".into()));
    };
    file.keep()?;
    if session.out.json {
        let path = path.to_string_lossy();
        session.out.json(
            &serde_json::json!({ "id": id, "output": path, "bytes": bytes, "password": password }),
        )?;
    } else {
        let path = path.to_string_lossy();
        session.out.line(&format!(
            "Wrote {} ({}), password: {}",
            safe(&path),
            size(bytes),
            safe(&password)
        ))?;
    }
    Ok(())
}

/// A file made by this command, root-only; removed again unless it is kept.
pub(super) struct NewFile {
    path: PathBuf,
    pub(super) file: File,
    kept: bool,
}

impl NewFile {
    /// Never overwrites, and follows no link.
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match file {
            Ok(file) => Ok(Self { path: path.to_owned(), file, kept: false }),
            Err(error) => {
                Err(CliError::Failed(format!("cannot create {}: {error}", path.display())))
            }
        }
    }

    pub(super) fn failed(&self, error: &io::Error) -> CliError {
        CliError::Failed(format!("cannot write {}: {error}", self.path.display()))
    }

    /// The content is whole.
    pub(super) fn keep(mut self) -> Result<(), CliError> {
        self.file
            .flush()
            .and_then(|()| self.file.sync_all())
            .map_err(|error| self.failed(&error))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
