-- Feature views, model lines, datasets, runs, versions, aliases, releases, and the story of each line.
-- Times are UTC microseconds; a column that ends in _json holds one JSON value.

create table feature_views (
    name        text   not null,
    version     bigint not null,
    sha256      text   not null,          -- of the source: the same text sent again changes nothing
    source      text   not null,
    created     bigint not null,
    primary key (name, version)
);

create table lines (
    name          text   not null primary key,
    view_name     text   not null,
    view_version  bigint not null,
    settings_json text   not null,
    revision      bigint not null,        -- what If-Match is compared with
    created       bigint not null,
    changed       bigint not null,
    foreign key (view_name, view_version) references feature_views (name, version)
);

create table datasets (
    id           bigint not null primary key,
    sha256       text   not null,         -- of the file
    line         text,
    view_name    text   not null,
    view_version bigint not null,
    from_time    bigint not null,
    to_time      bigint not null,
    label_delay  bigint not null,         -- microseconds
    rows         bigint not null,
    positives    bigint not null,
    mismatches   bigint not null,         -- rows whose replayed features differ from those served
    summary_json text   not null,
    created      bigint not null
);

-- One training attempt. queued -> running -> succeeded | failed | cancelled.
create table runs (
    id           bigint not null primary key,
    line         text   not null,
    state        text   not null check (state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    step         text   not null check (step in ('dataset', 'train', 'register', 'decide', 'done')),
    origin       text   not null check (origin in ('hand', 'drift')),
    reason       text   not null,
    dataset      bigint,
    from_time    bigint,
    to_time      bigint,
    seed         bigint not null,
    version      bigint,                  -- reserved when training begins
    attempt      bigint not null default 0, -- starts of the child process, those after a restart of the hub included
    error        text,
    result_json  text,
    created      bigint not null,
    started      bigint,
    finished     bigint
);
create index runs_by_state on runs (state, id);
create index runs_by_line on runs (line, id);

-- A version never changes and is never deleted; nothing in the program updates this table.
create table versions (
    line          text   not null,
    version       bigint not null,
    sha256        text   not null,        -- of the package file
    length        bigint not null,
    origin        text   not null check (origin in ('trained', 'uploaded')),
    run           bigint,
    dataset       bigint,
    seed          bigint,
    parent        bigint,                 -- the champion it was measured against
    manifest_json text   not null,
    result_json   text   not null,
    created       bigint not null,
    primary key (line, version)
);
create index versions_by_package on versions (sha256);

-- Only appended to: the newest row of (line, alias) is where the alias points now.
create table alias_changes (
    number  bigint not null primary key,
    line    text   not null,
    alias   text   not null,
    version bigint not null,
    reason  text   not null,
    changed bigint not null,
    foreign key (line, version) references versions (line, version)
);
create index alias_changes_by_alias on alias_changes (line, alias, number);

create table releases (
    line      text   not null,
    version   bigint not null,
    sha256    text   not null,
    length    bigint not null,
    signed    blob   not null,            -- the signed release in its byte form, as devices fetch it
    key_id    text   not null,
    published bigint not null,
    primary key (line, version),
    foreign key (line, version) references versions (line, version)
);

-- What happened to a line and why, for people.
create table line_events (
    number      bigint not null primary key,
    line        text   not null,
    time        bigint not null,
    kind        text   not null,
    message     text   not null,
    detail_json text   not null
);
create index line_events_by_line on line_events (line, number);

-- Answers to POSTs that carried an Idempotency-Key, kept for a day.
create table idempotency_keys (
    key          text   not null primary key,
    request      text   not null,         -- hash of method, path and body: the same key for another request is a mistake
    status       bigint not null,
    content_type text   not null,
    body         blob   not null,
    created      bigint not null
);
create index idempotency_keys_by_age on idempotency_keys (created);
