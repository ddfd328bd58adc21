//! `holdfast-manager`: the command line.
//!
//! Exit codes: 0 done, 1 failed, 64 wrong usage, 78 wrong config.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use holdfast_manager::api;
use holdfast_manager::api::serve::Identity;
use holdfast_manager::app::{App, Entrance, NewToken, Settings, audit_verify};
use holdfast_manager::backup;
use holdfast_manager::config::{Config, ConfigError};
use holdfast_manager::link::{Link, ServerCertificate};
use holdfast_manager::store::Store;
use tokio::signal::unix::{SignalKind, signal};

/// Ten thousand streams and their messages are many small pieces of memory: glibc's allocator takes
/// a quarter of the processor time of a manager that stores events, and keeps what is freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: u8 = 64;
const CONFIG: u8 = 78;

/// The manager of a Holdfast fleet.
#[derive(Parser)]
#[command(
    name = "holdfast-manager",
    version,
    after_help = "\
Examples:
  holdfast-manager serve --config /etc/holdfast/manager.toml
  holdfast-manager token create --group web --uses 20 --valid-hours 24
  holdfast-manager audit verify
  holdfast-manager backup /var/backups/holdfast-2026-11-22
  holdfast-manager restore /var/backups/holdfast-2026-11-22
  holdfast-manager user reset admin"
)]
struct Arguments {
    /// The config file.
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_MANAGER_CONFIG",
        default_value = "/etc/holdfast/manager.toml"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the manager. The first time it prints a one-time password of the user `admin`.
    Serve,
    /// The audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Enrollment tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Users.
    #[command(subcommand)]
    User(UserCommand),
    /// Copy the database and the data folder, while the manager runs, into a new folder.
    Backup {
        /// The folder; it must not be there yet.
        to: PathBuf,
    },
    /// Put a backup back into an empty data folder and database.
    Restore {
        /// The backup's folder.
        from: PathBuf,
    },
    /// Print the OpenAPI document of the HTTP interface.
    Openapi,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Check that no row of the audit log was changed, removed or cut off.
    Verify,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make an enrollment token and print it, once.
    Create {
        /// Group of the hosts that it enrolls.
        #[arg(long, default_value = "default")]
        group: String,
        /// How many hosts it may enroll.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it is valid, hours.
        #[arg(long, default_value_t = 1)]
        valid_hours: u32,
        /// What it is for.
        #[arg(long, default_value = "")]
        note: String,
    },
}

#[derive(Subcommand)]
enum UserCommand {
    /// Print a new one-time password of a user, and end its sign-ins.
    Reset {
        /// The user.
        name: String,
        /// Remove the second factor too.
        #[arg(long)]
        second_factor: bool,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    log_start();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-manager: {error:#}");
            let config = error.downcast_ref::<ConfigError>().is_some();
            if config { ExitCode::from(CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn log_start() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOLDFAST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if matches!(arguments.command, Command::Openapi) {
        println!("{}", api::document().to_pretty_json().context("write the document")?);
        return Ok(());
    }
    let config = Config::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    match arguments.command {
        Command::Serve => runtime.block_on(serve(&config)),
        Command::Audit(AuditCommand::Verify) => runtime.block_on(verify(&config)),
        Command::Token(TokenCommand::Create { group, uses, valid_hours, note }) => {
            let valid_s = u64::from(valid_hours) * 3600;
            runtime.block_on(token(&config, NewToken { group, note, uses, valid_s }))
        }
        Command::User(UserCommand::Reset { name, second_factor }) => {
            runtime.block_on(reset(&config, &name, second_factor))
        }
        Command::Backup { to } => runtime.block_on(backup_make(&config, &to)),
        Command::Restore { from } => {
            backup::restore(&config.database_place(), &config.data_dir, &from)?;
            println!("restored from {}", from.display());
            Ok(())
        }
        Command::Openapi => Ok(()),
    }
}

/// Each agent is a descriptor: as many as the system lets this process have.
fn descriptors_raise() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, all) {
        tracing::warn!(%error, "the limit of open files stays");
    }
}

/// Of a stream's buffers the most is never touched; in huge pages all of it takes memory.
fn huge_pages_off() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay");
    }
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    descriptors_raise();
    huge_pages_off();
    // From the beginning on: whoever ends it as soon as it listens ends it in order.
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let settings = Settings { providers: config.providers()?, ..config.settings() };
    let app = App::start(settings).await.context("start")?;
    if let Some(first) = app.first_admin().await.context("make the first admin")? {
        // To the terminal or the journal, once; it must be changed at the first sign-in.
        println!("first start: user {}, one-time password {}", first.name, first.password);
    }
    let link = Link::bind(config.link_config(), app.clone()).await.context("begin the link")?;
    let fingerprint = link.authority().fingerprint();
    app.entrance_tell(entrance(config, link.address().port(), fingerprint.to_string()));
    println!("agents enroll at {} with the fingerprint {fingerprint}", link.address());
    let bound = api::serve::bind(&api_place(config, &link)?).await?;
    listening(config, bound.address());
    let (end, ending) = tokio::sync::watch::channel(false);
    let mut link_ending = end.subscribe();
    let linking = tokio::spawn(link.run(Box::pin(async move {
        let _ = link_ending.wait_for(|ending| *ending).await;
    })));
    let serving = tokio::spawn(api::serve::run(bound, api::router(app.clone()), ending));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    end.send_replace(true);
    // What agents sent is written before the writer ends.
    linking.await.context("link")?.context("link")?;
    app.end();
    serving.await.context("serve")?;
    app.stop().await;
    Ok(())
}

/// Where hosts enroll, by each name of the manager; without names by the address.
fn entrance(config: &Config, port: u16, fingerprint: String) -> Entrance {
    let url = |name: &String| match name.parse::<Ipv6Addr>() {
        Ok(_) => format!("https://[{name}]:{port}"),
        Err(_) => format!("https://{name}:{port}"),
    };
    Entrance { urls: config.link.names.iter().map(url).collect(), fingerprint }
}

fn listening(config: &Config, address: Option<SocketAddr>) {
    match (address, &config.api.socket) {
        (Some(address), _) => {
            let scheme = if config.api.plain { "http" } else { "https" };
            println!("people and programs call {scheme}://{address}");
            tracing::info!(%address, "listening");
        }
        (None, socket) => {
            let socket = socket.as_deref().unwrap_or(Path::new(""));
            println!("people and programs call the socket {}", socket.display());
            tracing::info!(?socket, "listening");
        }
    }
}

/// Where the HTTP interface listens; without a given certificate by one of the manager's own
/// authority.
fn api_place(config: &Config, link: &Link) -> anyhow::Result<api::serve::Place> {
    if let Some(place) = config.api_place() {
        return Ok(place);
    }
    let address = config.api.listen.context("api: listen or socket")?;
    let names = config.link.names.clone();
    let made = ServerCertificate::new(link.authority(), names).context("make a certificate")?;
    Ok(api::serve::Place::Tls { address, identity: Identity::Made(Arc::new(made)) })
}

async fn verify(config: &Config) -> anyhow::Result<()> {
    let store = Store::open(config.database_place()).await?;
    let verdict = audit_verify(&store, &config.data_dir).await?;
    store.close().await;
    match verdict.fault {
        None => {
            println!("{} rows, whole; last hash {}", verdict.rows, verdict.head);
            Ok(())
        }
        Some(fault) => Err(fault).context("the audit log is not whole"),
    }
}

async fn token(config: &Config, new: NewToken) -> anyhow::Result<()> {
    let app = App::open(config.settings()).await?;
    let (_, secret) = app.token_create(new, "local").await?;
    app.stop().await;
    println!("{secret}");
    Ok(())
}

async fn reset(config: &Config, name: &str, second_factor: bool) -> anyhow::Result<()> {
    let app = App::open(config.settings()).await?;
    if second_factor {
        app.totp_reset_local(name).await?;
    }
    let password = app.user_reset(name).await?;
    app.stop().await;
    println!("one-time password of {name}: {password}");
    Ok(())
}

async fn backup_make(config: &Config, to: &Path) -> anyhow::Result<()> {
    let store = Store::open(config.database_place()).await?;
    backup::backup(&store, &config.data_dir, to).await?;
    store.close().await;
    println!("backed up to {}", to.display());
    Ok(())
}
