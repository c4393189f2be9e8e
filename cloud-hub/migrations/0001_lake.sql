-- What the lake holds, who sent it, and what was kept aside. Times are UTC microseconds, ids text.

-- Every device that was ever admitted. The report is the last one, in its byte form.
create table devices (
    id                 text   not null primary key,
    first_seen         bigint not null,
    last_seen          bigint not null,
    labels             text   not null default '{}',
    group_name         text,
    report             blob,
    report_incarnation bigint not null default 0,
    report_number      bigint not null default 0,
    report_at          bigint
);

-- The one type of every column of a stream.
create table stream_columns (
    stream   text   not null,
    name     text   not null,
    position bigint not null,
    kind     text   not null,
    unit     text   not null,
    nullable bigint not null,
    since    bigint not null,
    primary key (stream, name)
);

-- The Parquet files that count, in commit order. A file that is not here is not in the lake.
create table lake_files (
    number    bigint  not null primary key,
    path      text    not null unique,
    stream    text    not null,
    day       bigint  not null,
    rows      bigint  not null,
    bytes     bigint  not null,
    min_time  bigint  not null,
    max_time  bigint  not null,
    committed bigint  not null
);
create index lake_files_by_day on lake_files (stream, day);

-- Every batch number that was answered for. state: stored, quarantined, gap (then last_sequence ends the range).
create table batches (
    device        text   not null references devices (id),
    incarnation   bigint not null,
    stream        text   not null,
    sequence      bigint not null,
    last_sequence bigint not null,
    body_hash     blob   not null,
    rows          bigint not null,
    state         text   not null check (state in ('stored', 'quarantined', 'gap')),
    received      bigint not null,
    primary key (device, incarnation, stream, sequence)
);

-- Up to where a stream of a device is complete: spares reading all of its batches at start.
create table stream_progress (
    device      text   not null references devices (id),
    incarnation bigint not null,
    stream      text   not null,
    through     bigint not null,
    primary key (device, incarnation, stream)
);

-- Records that a device gave up, as it reported them.
create table gaps (
    device         text   not null references devices (id),
    incarnation    bigint not null,
    stream         text   not null,
    first_sequence bigint not null,
    last_sequence  bigint not null,
    reason         text   not null,
    records        bigint not null,
    received       bigint not null
);
create index gaps_by_device on gaps (device, incarnation, stream);

-- Messages kept as they came. state: kept, replayed.
create table quarantine (
    id          text   not null primary key,
    device      text   not null,
    incarnation bigint,
    stream      text,
    sequence    bigint,
    reason      text   not null,
    detail      text   not null,
    hash        blob   not null,
    bytes       bigint not null,
    path        text   not null,
    times       bigint not null default 1,
    received    bigint not null,
    state       text   not null default 'kept' check (state in ('kept', 'replayed')),
    replayed    bigint,
    unique (device, hash)
);

-- Something a person should know. At most one that is not resolved per kind and subject.
create table alerts (
    id             text   not null primary key,
    kind           text   not null,
    subject        text   not null,
    severity       text   not null check (severity in ('info', 'warning', 'critical')),
    state          text   not null default 'open' check (state in ('open', 'silenced', 'resolved')),
    detail         text   not null default '{}',
    times          bigint not null default 1,
    opened         bigint not null,
    updated        bigint not null,
    resolved       bigint,
    silenced_until bigint
);
create unique index alerts_unresolved on alerts (kind, subject) where state <> 'resolved';
