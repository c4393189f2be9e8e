-- Who may speak for which device: enrolment tokens, certificates, permits. Times are UTC microseconds.

-- What operators hand to whoever installs devices. Of the secret only its SHA-256 is kept.
create table enrolment_tokens (
    id           text   not null primary key,
    digest       blob   not null,
    group_name   text,                           -- where its devices begin
    labels_json  text   not null default '{}',   -- with which labels
    uses_allowed bigint not null,
    uses_made    bigint not null default 0 check (uses_made <= uses_allowed),
    expires      bigint not null,
    created      bigint not null,
    created_by   text   not null,
    revoked      bigint
);

-- Every certificate that was issued to a device. One that is not here is not taken, whoever signed it.
create table certificates (
    serial     text   not null primary key,
    device     text   not null references devices (id),
    der        blob   not null,
    how        text   not null check (how in ('enrolled', 'renewed')),
    token      text   references enrolment_tokens (id), -- that it was enrolled with
    not_before bigint not null,
    not_after  bigint not null,
    issued     bigint not null,
    used       bigint,                           -- when its device first connected with it
    revoked    bigint,
    reason     text                              -- why it was revoked
);
create index certificates_by_device on certificates (device, issued);

-- An operator's word that a device which has certificates may enrol once more.
create table enrolment_permits (
    device  text   not null primary key references devices (id),
    expires bigint not null,
    given   bigint not null
);
