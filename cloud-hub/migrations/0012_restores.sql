-- That this catalog came from a backup, and how far it has caught up. Times are UTC microseconds.
create table restores (
    epoch          bigint not null primary key,  -- counts up from 1
    restored       bigint not null,
    backup_time    bigint not null,              -- when the backup was taken
    audit_number   bigint not null,              -- where the audit log ended then
    audit_hash     text   not null,
    last_rollout   bigint not null,              -- rollouts up to this one were known then
    state          text   not null check (state in ('reading', 'waiting', 'done')),
    found_json     text   not null default '{}', -- what was taken in again from files
    waits_for      bigint not null default 0,    -- devices whose reports rollouts wait for
    waiting_since  bigint,
    ended          bigint,
    reason         text   not null default ''    -- why the wait ended
);

-- The first report of every device since the newest restore: what it knew from the lost history.
create table restore_reports (
    device       text   not null primary key references devices (id),
    epoch        bigint not null,
    reported     bigint not null,
    generation   bigint not null,
    timestamp    bigint not null,                -- version of timestamp.json that it trusts; 0: it does not say
    audit_number bigint not null,                -- newest audit entry that it was told of; 0: it does not say
    audit_hash   text   not null default ''
);

-- Packages that devices run and this catalog does not know: published after the backup. known: taken in again;
-- overruled: an operator said that devices may be moved away from it.
create table restore_packages (
    line    text   not null,
    version bigint not null,
    sha256  text   not null,
    found   bigint not null,
    state   text   not null default 'unknown' check (state in ('unknown', 'known', 'overruled')),
    primary key (line, sha256)
);

-- Numbers that a device had receipts for and of which this catalog knows nothing: gaps and empty batches that were
-- acknowledged after the backup, and records that are lost.
create table restore_losses (
    device         text   not null references devices (id),
    incarnation    bigint not null,
    stream         text   not null,
    first_sequence bigint not null,
    last_sequence  bigint not null,
    found          bigint not null,
    primary key (device, incarnation, stream, first_sequence)
);

-- Devices whose certificates were issued after the backup: renewed ones are taken in, others wait for an operator.
create table restore_certificates (
    serial   text   not null primary key,
    device   text   not null,
    found    bigint not null,
    accepted bigint
);
