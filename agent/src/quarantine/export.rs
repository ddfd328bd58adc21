//! Hands an item out for analysis: a zip with one entry, encrypted with AES-256 (WinZip AE-2),
//! which 7-Zip and bsdtar open. Content goes straight from the container into the zip.

use std::fs::File;
use std::io::{self, Seek, Write};

use holdfast_common::container::{Metadata, OpenError};
use zip::write::SimpleFileOptions;
use zip::{AesMode, CompressionMethod, ZipWriter};

use super::error::{UnsealError, VaultError};
use super::{HostKey, unseal};

pub(super) fn export(
    container: File,
    key: &HostKey,
    metadata: &Metadata,
    password: &str,
    out: impl Write + Seek,
) -> Result<(), VaultError> {
    if password.is_empty() {
        return Err(VaultError::NoPassword);
    }
    let failed = |source: io::Error| VaultError::Export { id: metadata.id, source };
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .large_file(metadata.file.size >= u64::from(u32::MAX) - (1 << 20))
        .unix_permissions(0o600)
        .with_aes_encryption(AesMode::Aes256, password);
    let mut zip = ZipWriter::new(out);
    let path = metadata.path_bytes().unwrap_or_default();
    zip.start_file(entry_name(&path), options).map_err(|error| failed(error.into()))?;
    match unseal(container, key, &mut zip) {
        Ok(_) => {}
        Err(UnsealError::Container(OpenError::Write(source))) => return Err(failed(source)),
        Err(source) => return Err(VaultError::Open { id: metadata.id, source }),
    }
    let mut out = zip.finish().map_err(|error| failed(error.into()))?;
    out.flush().map_err(failed)
}

/// The file's own name with everything taken out that a zip reader could take for a path, an
/// option or a terminal's order.
pub(crate) fn entry_name(path: &[u8]) -> String {
    let base = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let plain = |b: u8| match b {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'.' | b'_' | b'-' => char::from(b),
        _ => '_',
    };
    let name: String = base.iter().take(200).map(|&b| plain(b)).collect();
    if name.trim_matches('.').is_empty() || name.starts_with('-') {
        format!("file_{name}")
    } else {
        name
    }
}
