//! A layer of 2 GiB.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use coracle_testkit::golden::sha256_hex;
use coracle_testkit::image::Rng;
use coracle_testkit::oci::Bundle;
use serde_json::json;

use super::site::Site;

/// The bound that holds whatever the size of layers.
const MAX_RSS: u64 = 100 << 20;

#[test]
#[ignore = "long: 2 GiB through every transport, some minutes"]
fn two_gibibytes() {
    let site = Site::new();
    let layer = site.place.path("in/layer");
    // The content of a tar is of no interest to a copy; its size and digest are.
    let piece = Rng::new(9).bytes(1 << 20);
    let mut file = File::create(&layer).unwrap();
    for i in 0..2049u32 {
        file.write_all(&i.to_le_bytes()).unwrap();
        file.write_all(&piece[4..]).unwrap();
    }
    drop(file);
    let sum = site.program("sha256sum in/layer");
    let digest = format!("sha256:{}", sum.split(' ').next().unwrap());
    let size = std::fs::metadata(&layer).unwrap().len();
    assert!(size > 2 << 30);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [digest] },
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": format!("sha256:{}", sha256_hex(&config)), "size": config.len(),
        },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size }],
    });
    let bundle = Bundle {
        blobs: vec![config],
        root: ("application/vnd.oci.image.manifest.v1+json".into(), manifest.to_string().into_bytes()),
    };
    bundle.write_layout(&site.place.path("in/layout"), "big").unwrap();
    std::fs::rename(&layer, site.place.path("in/layout/blobs/sha256").join(&digest[7..])).unwrap();
    let steps = [
        ("oci:in/layout:big", "docker://{registry}/big:1"),
        ("docker://{registry}/big:1", "oci:out/l:1"),
        ("docker://{registry}/big:1", "oci-archive:out/a.tar:1"),
        ("oci-archive:out/a.tar:1", "docker://{registry}/again:1"),
        ("docker://{registry}/again:1", "docker-archive:out/d.tar:x:y"),
        ("docker-archive:out/d.tar", "dir:out/dir"),
    ];
    for (from, to) in steps {
        let start = Instant::now();
        let told = site.json(&format!("copy --tls-verify=false {from} {to}"));
        println!("{from} -> {to}: {:?}, {} of memory", start.elapsed(), told["peak_rss_bytes"]);
        assert!(told["peak_rss_bytes"].as_u64().unwrap() <= MAX_RSS, "{from} -> {to}: {told}");
        for done in ["out/a.tar", "out/l"] {
            if from.contains(done) {
                let _ = std::fs::remove_file(site.place.path(done));
            }
        }
    }
    assert_eq!(site.digest_by_skopeo("docker://{registry}/again:1"), bundle.digest());
}
