-- What operators asked of devices, once each, and what became of it. Times are UTC microseconds.
create table commands (
    id         text   not null primary key,        -- ULID, lower case
    device     text   not null references devices (id),
    name       text   not null,                    -- logs, diagnostics, restart, rotate-key
    order_json text   not null,
    created    bigint not null,
    created_by text   not null,
    deadline   bigint not null,
    state      text   not null check
               (state in ('queued', 'sent', 'done', 'failed', 'refused', 'expired', 'cancelled')),
    sent       bigint,                             -- last time
    times      bigint not null default 0,          -- how often it was sent
    reason     text   not null default '',         -- why it failed or was refused
    media      text   not null default '',
    body       blob,
    finished   bigint,                             -- by the device's clock
    ended      bigint                              -- by the hub's
);
create index commands_by_device on commands (device, id);
create index commands_open on commands (deadline) where state in ('queued', 'sent');
