//! The config file: TOML in, a checked [`Config`] out.
//!
//! Invariant: a `Config` that exists is valid. Unknown keys are refused, every error names the
//! file and the place. Reads the file and nothing else.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use holdfast_common::config::ConfigError;
use serde::Deserialize;

use crate::api::serve::{Identity, Place as ApiPlace};
use crate::app::{Keep, Retention, Role, RoleRule, Settings};
use crate::link;
use crate::oidc::Provider;
use crate::reach::address::Allowed;
use crate::reach::http::Target;
use crate::store::Place;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder for the database, delivered files, the authority; for the manager's user alone.
    pub data_dir: PathBuf,
    /// The database.
    #[serde(default)]
    pub database: Database,
    /// The HTTP interface.
    pub api: Api,
    /// The agents.
    #[serde(default)]
    pub link: Link,
    /// What is kept how long.
    #[serde(default)]
    pub retention: Keeping,
    /// Where notifications may go beside the usual.
    #[serde(default)]
    pub notify: Notify,
    /// Who else may say who somebody is.
    #[serde(default)]
    pub oidc: Vec<Oidc>,
}

/// `[[oidc]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// Its name in addresses and on the page for signing in: small letters, digits and `-`.
    pub name: String,
    /// Its issuer, `https://…`.
    pub issuer: String,
    /// As the manager is known there.
    pub client_id: String,
    /// File with the client's secret, of the manager's user alone.
    pub client_secret_file: PathBuf,
    /// How browsers reach this manager, `https://manager.example:8443`.
    pub address: String,
    /// Asked for beside `openid`.
    #[serde(default = "usual_scopes")]
    pub scopes: Vec<String>,
    /// The claim that is the user's name.
    #[serde(default = "usual_name_claim")]
    pub name_claim: String,
    /// The claim whose values give a role.
    #[serde(default = "usual_role_claim")]
    pub role_claim: String,
    /// Values of that claim for each role; the highest role counts, `*` is everybody.
    pub roles: Roles,
    /// PEM file of the authority that its certificate must come from; the system's without it.
    pub authority: Option<PathBuf>,
}

/// `roles` of `[[oidc]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Roles {
    /// Values for admins.
    pub admin: Vec<String>,
    /// Values for operators.
    pub operator: Vec<String>,
    /// Values for viewers.
    pub viewer: Vec<String>,
}

fn usual_scopes() -> Vec<String> {
    ["profile", "email", "groups"].map(str::to_owned).to_vec()
}

fn usual_name_claim() -> String {
    "preferred_username".to_owned()
}

fn usual_role_claim() -> String {
    "groups".to_owned()
}

/// `[notify]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Notify {
    /// Loopback addresses, and `http://` to them.
    pub allow_loopback: bool,
    /// Addresses that are refused otherwise.
    pub allow_addresses: Vec<IpAddr>,
}

/// `[database]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `postgres://…`; without it SQLite in the data folder.
    pub url: Option<String>,
}

/// `[api]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Address and port.
    pub listen: Option<SocketAddr>,
    /// PEM file of the certificate chain; without it one of the manager's own authority.
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
    /// No encryption; loopback only.
    #[serde(default)]
    pub plain: bool,
    /// A Unix socket, in place of `listen`.
    pub socket: Option<PathBuf>,
}

/// `[link]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// Address and port for agents.
    pub listen: SocketAddr,
    /// Names and addresses that agents and browsers know this manager by; they stand in the
    /// certificates that its authority makes for itself.
    pub names: Vec<String>,
    /// Seconds between two heartbeats of an agent, 1 to 15: a host is red after 50 s of silence.
    pub heartbeat_s: u64,
    /// Seconds that a host's certificate is valid, 5 to 400 days; renewed at two thirds.
    pub certificate_life_s: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], 8442)),
            names: vec!["localhost".to_owned()],
            heartbeat_s: 5,
            certificate_life_s: 90 * 86_400,
        }
    }
}

/// `[retention]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keeping {
    /// Days that events are kept.
    pub days: u32,
    /// MiB of events of one kind, at most; 0: no limit.
    pub mib: u64,
    /// Days that delivered files are kept.
    pub file_days: u32,
    /// MiB of delivered files.
    pub file_mib: u64,
    /// By kind, what differs.
    pub kinds: BTreeMap<String, Kind>,
}

/// `[retention.kinds.NAME]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Days.
    pub days: u32,
    /// MiB; 0: no limit.
    #[serde(default)]
    pub mib: u64,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { days: 365, mib: 0, file_days: 30, file_mib: 10_240, kinds: BTreeMap::new() }
    }
}

/// What `link.heartbeat_s` and `link.certificate_life_s` may be.
const HEARTBEAT_S: RangeInclusive<u64> = 1..=15;
const CERTIFICATE_LIFE_S: RangeInclusive<u64> = 5..=400 * 86_400;

/// Kinds that come in masses, and what is kept of them unless the config says otherwise.
const MASSES: [&str; 5] = ["exec", "packet_socket", "activity", "network", "file"];
const MASS: Kind = Kind { days: 14, mib: 10_240 };

impl Config {
    /// Reads and checks a config file.
    ///
    /// # Errors
    /// [`ConfigError`] with the file and the place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|message| ConfigError::Parse { path: path.to_owned(), message })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let api = &self.api;
        let paths = [
            ("data_dir", Some(&self.data_dir)),
            ("api.certificate", api.certificate.as_ref()),
            ("api.key", api.key.as_ref()),
            ("api.socket", api.socket.as_ref()),
        ];
        for (key, path) in paths {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                return Err(format!("{key}: {} is not an absolute path", path.display()));
            }
        }
        let schemes = ["postgres://", "postgresql://"];
        let known = |url: &String| schemes.iter().any(|scheme| url.starts_with(scheme));
        if !self.database.url.as_ref().is_none_or(known) {
            return Err("database.url: postgres://…, or leave it out".to_owned());
        }
        if api.listen.is_some() == api.socket.is_some() {
            return Err("api: either listen or socket".to_owned());
        }
        if api.certificate.is_some() != api.key.is_some() {
            return Err("api: certificate and key go together".to_owned());
        }
        if api.plain && (api.certificate.is_some() || api.socket.is_some()) {
            return Err("api.plain: without certificate and socket".to_owned());
        }
        if api.plain && api.listen.is_some_and(|address| !address.ip().is_loopback()) {
            return Err("api.plain: on a loopback address only".to_owned());
        }
        let days = [self.retention.days, self.retention.file_days];
        let kinds = self.retention.kinds.values().map(|kind| kind.days);
        if days.into_iter().chain(kinds).any(|days| days == 0 || days > 36_500) {
            return Err("retention: 1 to 36500 days".to_owned());
        }
        for (key, value, range) in [
            ("heartbeat_s", self.link.heartbeat_s, HEARTBEAT_S),
            ("certificate_life_s", self.link.certificate_life_s, CERTIFICATE_LIFE_S),
        ] {
            if !range.contains(&value) {
                return Err(format!("link.{key}: {} to {}", range.start(), range.end()));
            }
        }
        for (index, one) in self.oidc.iter().enumerate() {
            let allowed = self.notify.allow_loopback;
            one.check(allowed).map_err(|what| format!("oidc {}: {what}", index + 1))?;
            if self.oidc[..index].iter().any(|other| other.name == one.name) {
                return Err(format!("oidc {}: name: {} stands twice", index + 1, one.name));
            }
        }
        Ok(())
    }

    /// The providers that people may sign in by, with their secrets read.
    ///
    /// # Errors
    /// [`ConfigError`] that names the file that is missing, or that others can read.
    pub fn providers(&self) -> Result<Vec<(Provider, RoleRule)>, ConfigError> {
        let allowed = self.settings().notify;
        self.oidc.iter().map(|one| one.provider(&allowed)).collect()
    }

    /// How the link is served.
    #[must_use]
    pub fn link_config(&self) -> link::Config {
        let (names, data) = (self.link.names.clone(), self.data_dir.join("authority"));
        link::Config {
            heartbeat: Duration::from_secs(self.link.heartbeat_s),
            certificate_life: Duration::from_secs(self.link.certificate_life_s),
            ..link::Config::new(self.link.listen, names, data)
        }
    }

    /// Where the HTTP interface listens; nothing when the certificate is to be made by the
    /// manager's own authority.
    #[must_use]
    pub fn api_place(&self) -> Option<ApiPlace> {
        let api = &self.api;
        if let Some(path) = &api.socket {
            return Some(ApiPlace::Socket(path.clone()));
        }
        let address = api.listen?;
        if api.plain {
            return Some(ApiPlace::Plain(address));
        }
        let (certificate, key) = (api.certificate.clone()?, api.key.clone()?);
        Some(ApiPlace::Tls { address, identity: Identity::Files { certificate, key } })
    }

    /// Where the database is.
    #[must_use]
    pub fn database_place(&self) -> Place {
        match &self.database.url {
            Some(url) => Place::Server(url.clone()),
            None => Place::File(self.data_dir.join("manager.db")),
        }
    }

    /// What an `App` is made of.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let keep = |days, mib: u64| Keep { days, bytes: mib.saturating_mul(1 << 20) };
        let retention = &self.retention;
        let masses = MASSES.iter().map(|name| ((*name).to_owned(), MASS));
        let named = retention.kinds.iter().map(|(name, kind)| (name.clone(), *kind));
        let kinds = masses.chain(named).map(|(name, kind)| (name, keep(kind.days, kind.mib)));
        Settings {
            place: self.database_place(),
            data_dir: self.data_dir.clone(),
            retention: Retention {
                default: keep(retention.days, retention.mib),
                kinds: kinds.collect(),
                file_days: retention.file_days,
            },
            max_files: retention.file_mib.saturating_mul(1 << 20),
            notify: Allowed {
                loopback: self.notify.allow_loopback,
                addresses: self.notify.allow_addresses.clone(),
            },
            providers: Vec::new(),
        }
    }
}

impl Oidc {
    fn check(&self, allow_loopback: bool) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(plain) {
            return Err("name: 1 to 32 small letters, digits and -".to_owned());
        }
        for (key, url) in [("issuer", &self.issuer), ("address", &self.address)] {
            let target = Target::of(url).map_err(|what| format!("{key}: {what}"))?;
            if !target.is_secure() && !allow_loopback {
                let why = "https://…; http:// is for loopback, with notify.allow_loopback";
                return Err(format!("{key}: {why}"));
            }
        }
        let files = [
            ("client_secret_file", Some(&self.client_secret_file)),
            ("authority", self.authority.as_ref()),
        ];
        for (key, path) in files {
            if path.is_some_and(|path| !path.is_absolute()) {
                return Err(format!("{key}: not an absolute path"));
            }
        }
        let roles = &self.roles;
        if [&roles.admin, &roles.operator, &roles.viewer].iter().all(|values| values.is_empty()) {
            return Err("roles: nobody would get in".to_owned());
        }
        Ok(())
    }

    fn provider(&self, allowed: &Allowed) -> Result<(Provider, RoleRule), ConfigError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.to_owned(), source })
        };
        let secret_file = &self.client_secret_file;
        let wrong = |message: &str| ConfigError::Parse {
            path: secret_file.clone(),
            message: message.to_owned(),
        };
        let secret = read(secret_file)?;
        let about = std::fs::metadata(secret_file)
            .map_err(|source| ConfigError::Read { path: secret_file.clone(), source })?;
        if about.permissions().mode() & 0o077 != 0 {
            return Err(wrong("others can read this secret: chmod 600"));
        }
        let secret = secret.trim().to_owned();
        if secret.is_empty() {
            return Err(wrong("there is no secret in it"));
        }
        let address = self.address.trim_end_matches('/');
        let provider = Provider {
            name: self.name.clone(),
            issuer: self.issuer.clone(),
            client_id: self.client_id.clone(),
            client_secret: secret.into(),
            callback: format!("{address}/api/v1/session/oidc/{}/callback", self.name),
            scopes: self.scopes.clone(),
            name_claim: self.name_claim.clone(),
            role_claim: self.role_claim.clone(),
            authority: self.authority.as_deref().map(read).transpose()?,
            allowed: allowed.clone(),
        };
        let roles = self.roles.clone();
        let rule = RoleRule(vec![
            (Role::Admin, roles.admin),
            (Role::Operator, roles.operator),
            (Role::Viewer, roles.viewer),
        ]);
        Ok((provider, rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "data_dir = \"/var/lib/holdfast-manager\"\n[api]\n\
                            listen = \"127.0.0.1:8443\"\n";

    #[test]
    fn the_smallest_config_is_taken_with_defaults() {
        let config = Config::parse(SMALLEST).expect("smallest config");
        let file = PathBuf::from("/var/lib/holdfast-manager/manager.db");
        assert_eq!(config.database_place(), Place::File(file));
        assert!(config.api_place().is_none());
        assert_eq!(config.settings().retention.kinds["exec"].days, 14);
        assert_eq!(config.link.listen.port(), 8442);
        let link = config.link_config();
        assert_eq!((link.heartbeat.as_secs(), link.certificate_life.as_secs()), (5, 7_776_000));
        let short = format!("{SMALLEST}[link]\nheartbeat_s = 1\ncertificate_life_s = 6\n");
        let link = Config::parse(&short).expect("short").link_config();
        assert_eq!((link.heartbeat.as_secs(), link.certificate_life.as_secs()), (1, 6));
        let text = format!("{SMALLEST}[retention]\nkinds.exec = {{ days = 2 }}\n");
        let kinds = Config::parse(&text).expect("kinds").settings().retention.kinds;
        assert_eq!((kinds["exec"].days, kinds["network"].days), (2, 14));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = Config::parse(&format!("{SMALLEST}lisen = 1\n")).expect_err("typo");
        assert!(error.contains("line 4") && error.contains("lisen"), "{error}");
    }

    #[test]
    fn plain_http_needs_loopback_and_says_so() {
        let config = Config::parse(&format!("{SMALLEST}plain = true\n")).expect("plain");
        assert!(matches!(config.api_place(), Some(ApiPlace::Plain(_))));
        let open = SMALLEST.replace("127.0.0.1", "0.0.0.0");
        let error = Config::parse(&format!("{open}plain = true\n")).expect_err("open");
        assert!(error.contains("loopback"), "{error}");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (more, part) in [
            ("key = \"/k\"\n", "go together"),
            ("socket = \"/run/x\"\n", "either listen or socket"),
            ("key = \"k\"\ncertificate = \"/c\"\n", "absolute"),
            ("[database]\nurl = \"mysql://x\"\n", "postgres://"),
            ("[retention]\ndays = 0\n", "1 to 36500"),
            ("[link]\nheartbeat_s = 0\n", "link.heartbeat_s: 1 to 15"),
            ("[link]\nheartbeat_s = 16\n", "link.heartbeat_s: 1 to 15"),
            ("[link]\nheartbeat_s = -1\n", "heartbeat_s"),
            ("[link]\ncertificate_life_s = 4\n", "link.certificate_life_s: 5 to 34560000"),
            ("[link]\ncertificate_life_s = 34560001\n", "link.certificate_life_s: 5 to 34560000"),
        ] {
            let error = Config::parse(&format!("{SMALLEST}{more}")).expect_err(more);
            assert!(error.contains(part), "{more}: {error}");
        }
    }

    /// A config with one provider, whose secret lies there.
    fn with_provider(secret: &Path, issuer: &str, roles: &str) -> String {
        format!(
            "{SMALLEST}[[oidc]]\nname = \"corp\"\nissuer = \"{issuer}\"\nclient_id = \"holdfast\"\n\
             client_secret_file = \"{}\"\naddress = \"https://manager.example:8443/\"\n\
             roles = {{ {roles} }}\n",
            secret.display()
        )
    }

    #[test]
    fn a_provider_is_encrypted_lets_somebody_in_and_its_secret_is_nobody_elses() {
        let folder = tempfile::tempdir().expect("folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "hunter2\n").expect("write");
        let mode = |bits| std::fs::Permissions::from_mode(bits);
        std::fs::set_permissions(&secret, mode(0o600)).expect("chmod");
        let (issuer, roles) = ("https://id.example", "viewer = [\"*\"]");
        let config = Config::parse(&with_provider(&secret, issuer, roles)).expect("config");
        let providers = config.providers().expect("providers");
        let callback = "https://manager.example:8443/api/v1/session/oidc/corp/callback";
        assert_eq!(providers[0].0.callback, callback);
        assert!(!format!("{providers:?}").contains("hunter2"));
        std::fs::set_permissions(&secret, mode(0o640)).expect("chmod");
        let error = config.providers().expect_err("others read it").to_string();
        assert!(error.contains("secret") && error.contains("chmod 600"), "{error}");
        for (issuer, roles, part) in [
            ("http://id.example", roles, "oidc 1: issuer: https://"),
            ("https://u:p@id.example", roles, "oidc 1: issuer"),
            (issuer, "viewer = []", "oidc 1: roles"),
            (issuer, "superuser = [\"*\"]", "superuser"),
        ] {
            let text = with_provider(&secret, issuer, roles);
            let error = Config::parse(&text).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
        let text = with_provider(&secret, issuer, roles);
        let (_, one) = text.split_once("[[oidc]]").expect("provider");
        let error = Config::parse(&format!("{text}[[oidc]]{one}")).expect_err("twice");
        assert!(error.contains("oidc 2: name"), "{error}");
    }
}
