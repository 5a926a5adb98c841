//! Every stored image document, good and bad.

use coracle_codec::oci::{Document, Error, ImageConfig, Limits, Platform, Unverified};
use coracle_testkit::golden::Golden;
use serde_json::Value;

/// What is read of a case: `Err` is the message.
fn read(kind: &str, bytes: &[u8], media_type: Option<&str>) -> Result<Value, String> {
    let raw = Unverified::new(bytes.to_vec()).identify();
    let limits = Limits::default();
    let told = |e: Error| e.to_string();
    if kind == "config" {
        let config = ImageConfig::parse(raw, &limits).map_err(told)?;
        let mut found = serde_json::json!({ "layers": config.diff_ids().len() });
        if let Some(platform) = config.platform() {
            found["platform"] = platform.to_string().into();
        }
        assert_eq!(config.raw().as_bytes(), bytes);
        return Ok(found);
    }
    let document = Document::parse(raw, media_type, &limits).map_err(told)?;
    assert_eq!(document.raw().as_bytes(), bytes);
    let mut found = serde_json::json!({ "media_type": document.media_type() });
    match &document {
        Document::Manifest(manifest) => {
            found["layers"] = manifest.layers().len().into();
            found["bytes"] = manifest.layers().iter().map(|layer| layer.size).sum::<u64>().into();
        }
        Document::Index(index) => {
            found["manifests"] = index.manifests().len().into();
            if let Some(chosen) = index.choose(&Platform::new("linux", "arm64", "")) {
                found["chosen"] = chosen.digest.to_string().into();
            }
        }
    }
    Ok(found)
}

#[test]
fn documents() {
    let cases = Golden::built_in().cases::<Value>("oci").unwrap();
    assert_eq!(cases.len(), 46);
    for case in cases {
        let bytes = case.read("in.json").unwrap();
        let found = read(case.json["kind"].as_str().unwrap(), &bytes, case.json["media_type"].as_str());
        match case.json.get("expect") {
            Some(want) => assert_eq!(found.as_ref(), Ok(want), "{}", case.name),
            None => {
                let want = case.json["expect_error"].as_str().unwrap();
                let message = found.expect_err(&case.name);
                assert!(message.contains(want), "{}: {message:?} lacks {want:?}", case.name);
            }
        }
    }
}

#[test]
fn sizes_are_bounded() {
    let manifest = |layers: usize, padding: usize| {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let layer = format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":1}}"#);
        let layers = vec![layer.clone(); layers].join(",");
        let text =
            format!(r#"{{"schemaVersion":2,"config":{layer},"layers":[{layers}]}}{}"#, " ".repeat(padding));
        Unverified::new(text.into_bytes()).identify()
    };
    let limits = Limits { manifest_bytes: 4000, entries: 10, values: 200, ..Limits::default() };
    let verdict = |layers, padding| Document::parse(manifest(layers, padding), None, &limits).map(drop);
    assert_eq!(verdict(10, 0), Ok(()));
    assert_eq!(verdict(11, 0), Err(Error::TooManyEntries(10)));
    let size = manifest(10, 0).size();
    assert_eq!(verdict(10, 4000 - size as usize), Ok(()));
    let large = Error::TooLarge { what: "manifest", actual: 4001, limit: 4000 };
    assert_eq!(verdict(10, 4001 - size as usize), Err(large));
    assert_eq!(
        Document::parse(manifest(40, 0), None, &Limits { manifest_bytes: 1 << 20, ..limits }).map(drop),
        Err(Error::TooManyValues(200))
    );
}
