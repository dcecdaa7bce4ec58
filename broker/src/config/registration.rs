//! The section `[registration]`.

use turnpike_authz::quota::Windows;

use super::read::Section;
use crate::registrar::RegistrationSettings;

pub(super) fn read(section: &mut Section<'_>, registration: &mut RegistrationSettings) {
    section.boolean("enabled", &mut registration.enabled);
    section.read("address", &mut registration.address, |text| {
        text.parse().map(Some).map_err(|_| "must be an address such as \"0.0.0.0:18084\"".to_owned())
    });
    section.read("requests", &mut registration.requests, |text| {
        text.parse::<Windows>().map_err(|error| error.to_string())
    });
    section.networks("proxies", &mut registration.proxies);
    section.read("mqtt", &mut registration.mqtt, |text| {
        let host_and_port = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let is_host = |host: &str| {
            (1..=253).contains(&host.len()) && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b))
        };
        let (host, port) = host_and_port
            .filter(|(host, port)| is_host(host) && *port > 0)
            .ok_or("must be a host and a port, such as \"mqtt.example.com:1883\"")?;
        Ok(Some((host.to_owned(), port)))
    });
}
