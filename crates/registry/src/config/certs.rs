//! certs.d (containers-certs.d(5)): certificates by host.

use std::io;
use std::path::{Path, PathBuf};

use crate::Error;

/// Folders with one folder for each host, most important first, and one with certificates for every host.
#[derive(Debug, Clone, Default)]
pub struct CertFolders {
    /// Such as `/etc/containers/certs.d`: with folders `HOST[:PORT]`. The first that has one for a host serves it.
    pub by_host: Vec<PathBuf>,
    /// Given by the user: for all hosts, before any other.
    pub always: Option<PathBuf>,
}

/// What one host's folder holds.
#[derive(Debug, Clone, Default)]
pub struct HostCerts {
    /// Certificates of authorities to trust besides the system's: `*.crt`, PEM.
    pub authorities: Vec<Vec<u8>>,
    /// Certificate and key to show: `NAME.cert` and `NAME.key`, PEM, joined.
    pub identity: Option<Vec<u8>>,
}

impl CertFolders {
    /// What there is for `host`.
    ///
    /// # Errors
    /// [`Error::Config`] for files that cannot be read, and for half of a pair.
    pub fn of(&self, host: &str) -> Result<HostCerts, Error> {
        let mut found = HostCerts::default();
        if let Some(folder) = &self.always {
            read(folder, &mut found)?;
        }
        for folder in &self.by_host {
            let folder = folder.join(host);
            if folder.is_dir() {
                read(&folder, &mut found)?;
                break;
            }
        }
        Ok(found)
    }
}

fn read(folder: &Path, found: &mut HostCerts) -> Result<(), Error> {
    let fail = |path: &Path, reason: String| Error::Config { path: path.to_owned(), reason };
    let told = |path: &Path, e: io::Error| fail(path, e.to_string());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| told(folder, e))? {
        files.push(entry.map_err(|e| told(folder, e))?.path());
    }
    files.sort();
    for file in &files {
        let content = || std::fs::read(file).map_err(|e| told(file, e));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => found.authorities.push(content()?),
            Some("cert") => {
                let key = file.with_extension("key");
                let key = std::fs::read(&key)
                    .map_err(|e| fail(file, format!("its key {} cannot be read: {e}", key.display())))?;
                found.identity = Some([content()?, b"\n".to_vec(), key].concat());
            }
            Some("key") if !file.with_extension("cert").exists() => {
                return Err(fail(file, "there is no certificate of the same name (.cert)".into()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_of_a_host_counts() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("one/a.io:5000/ca.crt", "A");
        put("one/a.io:5000/x.cert", "C");
        put("one/a.io:5000/x.key", "K");
        put("two/a.io:5000/other.crt", "B");
        put("two/b.io/x.key", "K");
        put("all/root.crt", "R");
        let folders =
            CertFolders { by_host: vec![dir.path().join("one"), dir.path().join("two")], always: None };
        let found = folders.of("a.io:5000").unwrap();
        assert_eq!((found.authorities, found.identity), (vec![b"A".to_vec()], Some(b"C\nK".to_vec())));
        assert!(folders.of("c.io").unwrap().authorities.is_empty());
        assert!(matches!(folders.of("b.io"), Err(Error::Config { .. })));
        let always = CertFolders { always: Some(dir.path().join("all")), ..folders };
        assert_eq!(always.of("c.io").unwrap().authorities, [b"R"]);
        assert_eq!(always.of("a.io:5000").unwrap().authorities, [b"R", b"A"]);
    }
}
