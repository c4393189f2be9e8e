//! What tests of more than one state machine share.

pub(crate) mod explorer;
