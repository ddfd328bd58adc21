//! Reads rules: those shipped, and a folder of Sigma files, unmodified.
//!
//! INVARIANT: only root decides what a rule is, since a rule may kill: the folder and every file
//! in it belong to root and are writable by nobody else; links are not followed. A file that is
//! not valid is left out and named; it never takes others with it. Files, their sizes and the
//! number of rules are bounded.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use holdfast_common::models::SHIPPED;
use rsigma_eval::correlation::{CompiledCorrelation, compile_correlation};
use rsigma_eval::{CompiledRule, Engine as Compiler, compile_rule};
use rsigma_parser::value::{SpecialChar, StringPart};
use rsigma_parser::{Detection, Modifier, SigmaCollection, SigmaRule, SigmaValue};

/// Origin of what this program brings along.
pub(super) const SHIPPED_ORIGIN: &str = "shipped";
/// Largest file.
const FILE_MAX: u64 = 1 << 20;
/// Most files in a folder and below it.
const FILES_MAX: usize = 20_000;
/// Most rules in use.
const RULES_MAX: usize = 10_000;
/// Folders inside folders.
const DEPTH_MAX: usize = 16;

/// Everything that was read.
#[derive(Default)]
pub struct Collected {
    /// Compiled rules; their places are kept by whoever numbers them.
    pub rules: Vec<Named<CompiledRule>>,
    /// Compiled correlations.
    pub correlations: Vec<Named<CompiledCorrelation>>,
    /// What was left out, and why.
    pub refused: Vec<Refused>,
}

/// A rule, and what it is known by.
pub struct Named<T> {
    /// The rule.
    pub rule: T,
    /// Sigma's `name`, by which correlations may refer to it.
    pub name: Option<String>,
    /// `shipped`, or its file.
    pub origin: String,
}

/// A file or a part of it that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The file.
    pub origin: String,
    /// Why.
    pub reason: String,
}

/// The folder itself could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A system call failed.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody other than root could change it.
    #[error("{0} must belong to root and be writable by root alone")]
    Unsafe(PathBuf),
    /// Too many files, or folders too deep.
    #[error("{0} holds more than {FILES_MAX} files, or folders deeper than {DEPTH_MAX}")]
    TooLarge(PathBuf),
}

impl Collected {
    /// Takes the models in that this program brings along.
    pub fn add_shipped(&mut self) {
        for text in SHIPPED {
            self.add(SHIPPED_ORIGIN, text);
        }
    }

    /// Takes the rules of one text in.
    pub fn add(&mut self, origin: &str, text: &str) {
        let mut collection = match rsigma_parser::parse_sigma_yaml(text) {
            Ok(collection) => collection,
            Err(error) => return self.refuse(origin, &error.to_string()),
        };
        for error in std::mem::take(&mut collection.errors) {
            self.refuse(origin, &error);
        }
        let mut compiled = Vec::new();
        for rule in &mut collection.rules {
            if self.rules.len() + compiled.len() >= RULES_MAX {
                self.refuse(origin, "there are too many rules");
                break;
            }
            normalise(rule);
            match compile_rule(rule) {
                Ok(one) => compiled.push((one, rule.name.clone())),
                Err(error) => self.refuse(origin, &format!("{}: {error}", rule.title)),
            }
        }
        for correlation in &collection.correlations {
            match compile_correlation(correlation) {
                Ok(rule) => {
                    let (name, origin) = (correlation.name.clone(), origin.to_owned());
                    self.correlations.push(Named { rule, name, origin });
                }
                Err(error) => self.refuse(origin, &format!("{}: {error}", correlation.title)),
            }
        }
        for (rule, name) in compiled {
            self.rules.push(Named { rule, name, origin: origin.to_owned() });
        }
        self.filter(origin, &collection);
    }

    /// Sigma's filter documents narrow rules that were read before them.
    fn filter(&mut self, origin: &str, collection: &SigmaCollection) {
        for filter in &collection.filters {
            let mut compiler = Compiler::new();
            compiler.extend_compiled_rules(self.rules.iter().map(|named| named.rule.clone()));
            match compiler.apply_filter(filter) {
                Ok(()) => {
                    for (named, filtered) in self.rules.iter_mut().zip(compiler.rules()) {
                        named.rule = filtered.clone();
                    }
                }
                Err(error) => self.refuse(origin, &format!("{}: {error}", filter.title)),
            }
        }
    }

    /// Takes all `*.yml` and `*.yaml` files below a folder in, by name.
    ///
    /// # Errors
    /// [`FolderError`] when the folder as a whole is not to be used.
    pub fn add_folder(&mut self, folder: &Path) -> Result<(), FolderError> {
        let root = folder
            .canonicalize()
            .map_err(|source| FolderError::Read { path: folder.to_owned(), source })?;
        for above in root.ancestors().skip(1) {
            let facts = facts(above)?;
            // In a sticky folder nobody else can rename what is root's.
            if facts.uid() != 0 || (facts.mode() & 0o022 != 0 && facts.mode() & 0o1000 == 0) {
                return Err(FolderError::Unsafe(above.to_owned()));
            }
        }
        let mut files = Vec::new();
        list(&root, DEPTH_MAX, &mut files)?;
        files.sort();
        for file in files {
            self.add_file(&file);
        }
        Ok(())
    }

    fn add_file(&mut self, file: &Path) {
        let origin = file.display().to_string();
        let text = facts(file).map_err(|error| crate::error_chain(&error)).and_then(|facts| {
            if !facts.is_file() {
                Err("it is not a regular file".to_owned())
            } else if facts.len() > FILE_MAX {
                Err(format!("it is larger than {FILE_MAX} bytes"))
            } else if !roots_alone(&facts) {
                Err("it must belong to root and be writable by root alone".to_owned())
            } else {
                std::fs::read_to_string(file).map_err(|error| error.to_string())
            }
        });
        match text {
            Ok(text) => self.add(&origin, &text),
            Err(reason) => self.refuse(&origin, &reason),
        }
    }

    /// Notes that something was left out.
    pub fn refuse(&mut self, origin: &str, reason: &str) {
        self.refused.push(Refused { origin: origin.to_owned(), reason: reason.to_owned() });
    }
}

fn facts(path: &Path) -> Result<std::fs::Metadata, FolderError> {
    path.symlink_metadata().map_err(|source| FolderError::Read { path: path.to_owned(), source })
}

fn roots_alone(facts: &std::fs::Metadata) -> bool {
    facts.uid() == 0 && facts.mode() & 0o022 == 0
}

fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), FolderError> {
    if !roots_alone(&facts(folder)?) {
        return Err(FolderError::Unsafe(folder.to_owned()));
    }
    if depth == 0 {
        return Err(FolderError::TooLarge(folder.to_owned()));
    }
    let failed = |source| FolderError::Read { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(failed)?;
        let rule = path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml");
        if kind.is_dir() {
            list(&path, depth - 1, files)?;
        } else if rule {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(FolderError::TooLarge(folder.to_owned()));
        }
    }
    Ok(())
}

/// Keywords are looked for inside a text: the specification has them anywhere in the log line,
/// where rsigma compares those with wildcards, or under `|all`, with the whole of a field.
fn normalise(rule: &mut SigmaRule) {
    for detection in rule.detection.named.values_mut() {
        normalise_detection(detection);
    }
}

fn normalise_detection(detection: &mut Detection) {
    match detection {
        Detection::Keywords(values) => values.iter_mut().for_each(surround),
        Detection::AllOf(items) => {
            for item in items.iter_mut().filter(|item| item.field.name.is_none()) {
                let plain = item.field.modifiers.iter().all(|modifier| {
                    matches!(modifier, Modifier::All | Modifier::Cased | Modifier::WindAsh)
                });
                if plain {
                    item.field.modifiers.insert(0, Modifier::Contains);
                }
            }
        }
        Detection::AnyOf(all) | Detection::And(all) => {
            all.iter_mut().for_each(normalise_detection);
        }
        // Members of a list, not the event: rsigma's extension, as it is.
        Detection::ArrayMatch { .. } | Detection::Conditional { .. } => {}
    }
}

fn surround(value: &mut SigmaValue) {
    let SigmaValue::String(text) = value else { return };
    let any = StringPart::Special(SpecialChar::WildcardMulti);
    if !text.contains_wildcards() {
        return;
    }
    if text.parts.first() != Some(&any) {
        text.parts.insert(0, any.clone());
    }
    if text.parts.last() != Some(&any) {
        text.parts.push(any);
    }
}
