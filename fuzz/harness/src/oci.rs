//! Documents of images.

use coracle_codec::oci::{
    Document, Error, ImageConfig, Limits, Manifest, Platform, Reference, Unverified, Verified, media_type,
};

/// Small, so that what is within and what is beyond is both easy to find.
pub(crate) const LIMITS: Limits = Limits {
    manifest_bytes: 16 << 10,
    config_bytes: 16 << 10,
    depth: 12,
    values: 2000,
    entries: 50,
    blob_bytes: 1 << 40,
    nesting: 2,
};

/// Reads `data` as a manifest or index with each media type it may come with, as a config, and as names.
///
/// * The bytes are kept as they are, and their digest is the document's.
/// * What is accepted keeps to the bounds, is JSON to other parsers, too, and is not both a manifest and an index.
/// * A media type from outside never changes what is inside: the verdict differs only by being accepted or not.
/// * Within tighter bounds the answer is the same or a refusal.
/// * Names and platforms, once read, are read again from what they print.
pub fn oci_parse(data: &[u8]) {
    let raw = || Unverified::new(data.to_vec()).identify();
    let alone = Document::parse(raw(), None, &LIMITS);
    let served = [
        media_type::OCI_MANIFEST,
        media_type::OCI_INDEX,
        media_type::DOCKER_MANIFEST,
        media_type::DOCKER_LIST,
    ];
    for given in served.into_iter().chain(["application/json", ""]) {
        let found = Document::parse(raw(), Some(given), &LIMITS);
        if let Ok(document) = &found {
            check(document, data);
            if given.is_empty() || given == "application/json" {
                let alone = alone.as_ref().unwrap_or_else(|e| panic!("{given:?} made it good: {e}"));
                assert_eq!(alone.media_type(), document.media_type());
            }
        }
        if let Err(Error::MediaType { inside, outside }) = &found {
            assert!(inside != outside && outside == given);
        }
    }
    let tight = Limits { depth: 4, values: 100, entries: 2, ..LIMITS };
    match (Document::parse(raw(), None, &tight), &alone) {
        (Ok(tight), Ok(wide)) => assert_eq!(tight.media_type(), wide.media_type()),
        (Ok(_), Err(e)) => panic!("tighter bounds made it good: {e}"),
        (Err(_), _) => {}
    }
    config(raw());
    if let Ok(text) = std::str::from_utf8(data) {
        names(text);
    }
}

fn check(document: &Document, data: &[u8]) {
    assert!(document.raw().as_bytes() == data, "the bytes changed");
    assert_eq!(document.digest(), Unverified::new(data.to_vec()).identify().digest());
    assert!(data.len() as u64 <= LIMITS.manifest_bytes);
    let value: serde_json::Value = serde_json::from_slice(data).unwrap_or_else(|e| panic!("no JSON: {e}"));
    assert!(
        value.get("manifests").is_none_or(|v| v.is_null() || value.get("layers").is_none_or(|v| v.is_null()))
    );
    match document {
        Document::Manifest(manifest) => manifest_bounds(manifest),
        Document::Index(index) => {
            assert!(index.manifests().len() <= LIMITS.entries as usize);
            for host in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
                let host: Platform = host.parse().unwrap_or_else(|e| panic!("{e}"));
                if let Some(chosen) = index.choose(&host) {
                    let platform =
                        chosen.platform.as_ref().unwrap_or_else(|| panic!("chosen without a platform"));
                    assert!(platform.fits(&host).is_some());
                }
            }
        }
    }
    // A descriptor is read again from what it prints.
    let descriptor = document.descriptor();
    let again = coracle_codec::oci::Descriptor::parse(&descriptor.to_json(), &LIMITS);
    assert_eq!(again.as_ref(), Ok(&descriptor));
}

fn manifest_bounds(manifest: &Manifest) {
    assert!(manifest.layers().len() <= LIMITS.entries as usize);
    for blob in manifest.layers().iter().chain([manifest.config()]).chain(manifest.subject()) {
        assert!(blob.size <= LIMITS.blob_bytes);
        assert_eq!(blob.digest.to_string().parse(), Ok(blob.digest));
    }
}

fn config(raw: Verified) {
    let bytes = raw.as_bytes().to_vec();
    if let Ok(config) = ImageConfig::parse(raw, &LIMITS) {
        assert!(config.raw().as_bytes() == bytes && config.diff_ids().len() <= LIMITS.entries as usize);
    }
}

fn names(text: &str) {
    if let Ok(reference) = text.parse::<Reference>() {
        let printed = reference.to_string();
        assert_eq!(printed.parse().as_ref(), Ok(&reference), "{printed}");
        let path = reference.repository().path();
        assert!(
            !path.contains("..") && !path.starts_with('/') && !path.contains(char::is_whitespace),
            "{path}"
        );
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse().as_ref(), Ok(&platform), "{text}");
    }
}
