//! For whoever examines an identity: what it consists of, beside what connections need.

use tributary_identity::{Certificate, Key as _, KeyError, KeyFile};

use super::Current;

impl Current {
    /// Whether key and certificate belong together.
    pub fn is_of_its_key(&self) -> Result<bool, KeyError> {
        let key: &KeyFile = &self.stored.key;
        key.signer()?;
        self.certificate.belongs_to(key)
    }

    /// The authorities that this device believes.
    pub fn authorities(&self) -> &[Certificate] {
        &self.stored.authorities
    }
}
