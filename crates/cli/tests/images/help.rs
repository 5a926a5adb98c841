//! What is offered is what is explained.

use crate::place::Place;

#[test]
fn every_transport_is_in_the_help() {
    let text = Place::new().ok("copy --help").text();
    for name in [
        "docker://",
        "oci:",
        "oci-archive:",
        "docker-archive:",
        "dir:",
        "docker-daemon:",
        "containers-storage:",
        "rootfs:",
    ] {
        assert!(text.contains(name), "{name}");
    }
}
