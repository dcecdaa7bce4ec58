//! A firmware to write down.

use turnpike_authz::names::ProductKey;
use turnpike_authz::x509::Fingerprint;

use crate::firmware::{Contents, Digester, Firmware, RunsOn, State};
use crate::ids::FirmwareId;
use crate::signature::Signed;

/// Nine bytes, `123456789`, signed if that is wanted.
pub(crate) fn contents(signed: bool) -> Contents {
    let mut digester = Digester::default();
    digester.update(b"123456789");
    let signed = signed.then(|| Signed { signature: Box::from([1, 2, 3]), key: Fingerprint::of(b"key") });
    Contents { whole: digester.finish(), signed }
}

pub(crate) fn firmware(base: Option<&str>) -> Firmware {
    let name = |text: &str| text.parse().expect("a name");
    Firmware {
        id: FirmwareId(1),
        product: ProductKey::parse("lamp").expect("a name"),
        target: "mcu".parse().expect("a name"),
        version: name("1.2.1"),
        runs_on: RunsOn::Any,
        release: 1,
        base: base.map(name),
        note: "".into(),
        created_at_s: 0,
        state: State::Ready(contents(false)),
    }
}
