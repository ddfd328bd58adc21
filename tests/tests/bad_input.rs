//! Bad input gets one clear error that names the file and the place, and changes nothing.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holdfast_tests::agent::{PATIENCE, binary, finish};
use holdfast_tests::require_root;
use holdfast_tests::scratch::Scratch;

/// A folder with a config that would be good, and a file system of its own to protect.
struct Place {
    home: tempfile::TempDir,
    scratch: Scratch,
}

impl Place {
    fn new() -> Self {
        require_root();
        let home = tempfile::tempdir().expect("temporary folder");
        Self { home, scratch: Scratch::tmpfs(4 << 20).expect("scratch") }
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// Starts the agent with these lines behind a good beginning; it must not start.
    fn refused(&self, more: &str) -> Output {
        let config = format!(
            "state_dir = \"{}\"\nsocket = \"{}/socket\"\n[on_access]\nprotect = [\"{}\"]\n\
             mode = \"block\"\n{more}\n",
            self.state().display(),
            self.home.path().display(),
            self.scratch.path().display(),
        );
        let file = self.home.path().join("holdfast.toml");
        fs::write(&file, config).expect("write config");
        let mut command = Command::new(binary("holdfastd"));
        finish(command.arg("--config").arg(file), PATIENCE).expect("holdfastd ends")
    }
}

#[track_caller]
fn assert_says(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
    let errors = said.lines().filter(|line| line.starts_with("holdfastd: ")).count();
    assert_eq!(errors, 1, "one error: {said}");
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("folder")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn unknown_key_is_refused_with_file_and_line() {
    let place = Place::new();
    let output = place.refused("deadline = 3");
    assert_says(&output, 78, &["holdfast.toml", "line 6", "deadline"]);
    assert!(!place.state().exists(), "nothing was made");
}

#[test]
fn value_out_of_range_and_bad_glob_are_refused() {
    let place = Place::new();
    assert_says(&place.refused("deadline_ms = 5"), 78, &["line 6", "50 to 30000"]);
    let glob = "[on_access.exclude]\npaths = [\"/srv/[\"]";
    assert_says(&place.refused(glob), 78, &["line 7"]);
}

#[test]
fn missing_config_and_unknown_option_have_their_own_exits() {
    let mut missing = Command::new(binary("holdfastd"));
    let output = finish(missing.args(["--config", "/nonexistent.toml"]), PATIENCE).expect("ends");
    assert_says(&output, 78, &["/nonexistent.toml", "No such file"]);
    let output = finish(Command::new(binary("holdfastd")).arg("--nonsense"), PATIENCE);
    assert_eq!(output.expect("ends").status.code(), Some(64));
}

#[test]
fn path_that_is_not_there_is_named() {
    let place = Place::new();
    let scratch = place.scratch.path().display().to_string();
    let config = place.home.path().join("holdfast.toml");
    place.refused("x = 1");
    let text = fs::read_to_string(&config).expect("config");
    fs::write(&config, text.replace(&scratch, "/no/such/place").replace("x = 1", ""))
        .expect("write");
    let mut command = Command::new(binary("holdfastd"));
    let output = finish(command.arg("--config").arg(&config), PATIENCE).expect("ends");
    assert_says(&output, 78, &["protect", "/no/such/place"]);
}

#[test]
fn rules_that_do_not_parse_are_named_with_file_and_line() {
    let place = Place::new();
    let rules = place.home.path().join("rules");
    fs::DirBuilder::new().mode(0o755).create(&rules).expect("folder");
    fs::write(rules.join("bad.yar"), "rule good { condition: true }\nrule bad { strings: }\n")
        .expect("write");
    let bundle = format!("[scan]\nbundle = \"{}\"", rules.display());
    assert_says(&place.refused(&bundle), 78, &["bad.yar", "2"]);
    fs::remove_file(rules.join("bad.yar")).expect("remove");
    fs::write(rules.join("list.sha256"), "# a comment\nxyz Name\n").expect("write");
    assert_says(&place.refused(&bundle), 78, &["list.sha256", "2"]);
}

#[test]
fn state_of_a_newer_version_is_left_alone() {
    let place = Place::new();
    fs::DirBuilder::new().mode(0o700).create(place.state()).expect("folder");
    fs::write(place.state().join("version"), "999\n").expect("write");
    assert_says(&place.refused(""), 78, &["version", "newer agent"]);
    assert_eq!(names(&place.state()), ["version"]);
    assert_eq!(fs::read_to_string(place.state().join("version")).expect("read"), "999\n");
}

#[test]
fn state_folder_that_others_can_write_is_refused() {
    let place = Place::new();
    fs::create_dir(place.state()).expect("folder");
    fs::set_permissions(place.state(), fs::Permissions::from_mode(0o777)).expect("mode");
    assert_says(&place.refused(""), 78, &["state", "nobody else can write"]);
    assert!(names(&place.state()).is_empty());
}

#[test]
fn damaged_allow_list_is_named_and_left_alone() {
    let place = Place::new();
    fs::DirBuilder::new().mode(0o700).create(place.state()).expect("folder");
    fs::write(place.state().join("allowed.json"), "[{").expect("write");
    assert_says(&place.refused(""), 78, &["allowed.json", "line 1"]);
    assert_eq!(fs::read_to_string(place.state().join("allowed.json")).expect("read"), "[{");
}
