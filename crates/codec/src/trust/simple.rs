//! The payload of simple signing, as cosign fills it in (cosign, SIGNATURE_SPEC, "Simple Signing").

use serde_json::Value;

use super::members::{Members, parse};
use super::shortened;
use crate::digest::Digest;

/// Media type of the payload.
pub const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Where the signature over a payload stands: an annotation of the payload's descriptor, in base64.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// A certificate beside the signature.
pub const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
/// What a payload says it is.
const TYPE: &str = "cosign container image signature";

/// What a payload says. Whether somebody stands by it is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The manifest that was signed.
    pub digest: Digest,
    /// The name that the signer gave it.
    pub reference: String,
}

/// Reads a payload as strictly as containers/image: a member that nobody knows may mean anything, so there may be none
/// but in `optional`.
///
/// # Errors
/// What is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Payload, String> {
    let mut whole = Members::new(parse(bytes, "payload")?, "the payload")?;
    let mut critical = Members::new(whole.required("critical")?, "critical")?;
    match whole.required("optional")? {
        Value::Null => {}
        Value::Object(optional) => {
            if optional.get("creator").is_some_and(|creator| !creator.is_string()) {
                return Err("optional: creator is no text".into());
            }
            if optional.get("timestamp").is_some_and(|time| !is_whole(time)) {
                return Err("optional: timestamp is no whole number".into());
            }
        }
        _ => return Err("optional is no object".into()),
    }
    whole.finish()?;
    let kind = critical.required_text("type")?;
    let mut image = Members::new(critical.required("image")?, "image")?;
    let mut identity = Members::new(critical.required("identity")?, "identity")?;
    critical.finish()?;
    if kind != TYPE {
        return Err(format!("critical: type is {:?}", shortened(&kind)));
    }
    let digest = image.required_text("docker-manifest-digest")?;
    image.finish()?;
    let reference = identity.required_text("docker-reference")?;
    identity.finish()?;
    let digest = digest.parse().map_err(|_| format!("{:?} is no sha256 digest", shortened(&digest)))?;
    Ok(Payload { digest, reference })
}

fn is_whole(number: &Value) -> bool {
    // What is exact in a double of Go.
    number.as_i64().is_some() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn payload(text: &str) -> String {
        text.replace("DIGEST", DIGEST)
    }

    const GOOD: &str = r#"{"critical":{"identity":{"docker-reference":"h.io/app"},"image":{"docker-manifest-digest":"DIGEST"},"type":"cosign container image signature"},"optional":null}"#;

    #[test]
    fn what_cosign_and_skopeo_write_is_read() {
        for optional in ["null", "{}", r#"{"creator":"x","timestamp":1700000000,"more":{"a":[1]}}"#] {
            let text = payload(GOOD).replace(":null}", &format!(":{optional}}}"));
            let read = read(text.as_bytes()).unwrap();
            assert_eq!((read.digest.to_string(), read.reference), (DIGEST.into(), "h.io/app".into()));
        }
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        for (wanted, from, to) in [
            ("EOF", GOOD, ""),
            ("is no object", GOOD, "[]"),
            ("critical is missing", GOOD, "{}"),
            ("optional is missing", ",\"optional\":null", ""),
            ("optional is no object", "\"optional\":null", "\"optional\":1"),
            ("creator is no text", "\"optional\":null", "\"optional\":{\"creator\":1}"),
            ("no whole number", "\"optional\":null", "\"optional\":{\"timestamp\":1.5}"),
            ("\"more\" is not known", "\"optional\":null", "\"optional\":null,\"more\":1"),
            ("\"more\" is not known", "\"critical\":{", "\"critical\":{\"more\":1,"),
            ("\"more\" is not known", "\"image\":{", "\"image\":{\"more\":1,"),
            ("\"more\" is not known", "\"identity\":{", "\"identity\":{\"more\":1,"),
            ("type is missing", ",\"type\":\"cosign container image signature\"", ""),
            ("type is \"atomic container signature\"", "cosign container image", "atomic container"),
            ("is no sha256 digest", "DIGEST", "sha512:00"),
            ("docker-manifest-digest is missing", "\"docker-manifest-digest\":\"DIGEST\"", ""),
            ("docker-reference is no text", "\"h.io/app\"", "null"),
            ("twice", "\"image\":{", "\"image\":{},\"image\":{"),
            ("twice", "\"critical\":{", "\"Critical\":{},\"critical\":{"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let text = payload(&GOOD.replace(from, to));
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }
}
