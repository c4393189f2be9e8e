-- Rollouts, what every device should run, and what the monitor has seen. Times are UTC microseconds.

-- A fleet on its way to a release. Every write carries the epoch it was decided on: one that lost a race changes nothing.
create table rollouts (
    id            bigint not null primary key,
    line          text   not null,
    role          text   not null,
    version       bigint not null,
    length        bigint not null,
    sha256        text   not null,
    policy_json   text   not null,
    state         text   not null check (state in ('running', 'paused', 'stopping', 'stopped', 'completed')),
    state_json    text   not null,
    baseline_json text   not null default '{}',    -- counters of every device when the present wave began
    epoch         bigint not null default 1,
    reason        text   not null,
    created       bigint not null,
    changed       bigint not null
);
create unique index rollouts_active on rollouts (line, role) where state in ('running', 'paused');
create index rollouts_by_line on rollouts (line, role, id);

-- The devices that were assigned a rollout's release.
create table rollout_devices (
    rollout     bigint not null references rollouts (id),
    device      text   not null references devices (id),
    wave        bigint not null,
    assigned    bigint not null,
    before_json text,                              -- what it had: where a rollback leads
    rolled_back bigint,
    primary key (rollout, device)
);

-- What a rollout did and why, for people.
create table rollout_steps (
    rollout bigint not null references rollouts (id),
    number  bigint not null,
    time    bigint not null,
    state   text   not null,
    message text   not null,
    primary key (rollout, number)
);

-- What every device should run, line by line.
create table wishes (
    device      text   not null references devices (id),
    line        text   not null,
    role        text   not null,
    version     bigint not null,
    length      bigint not null,
    sha256      text   not null,
    allow_lower bigint not null,
    rollout     bigint not null references rollouts (id),
    primary key (device, line, role)
);

-- The newest assignment signed for every device. Generations only grow and are never used twice.
create table assignments (
    device     text   not null primary key references devices (id),
    generation bigint not null,
    signed     blob   not null,
    issued     bigint not null,
    expires    bigint not null
);

-- Up to which lake file the monitor has read a stream; moves in the transaction of what was read.
create table monitor_progress (
    stream text   not null primary key,
    number bigint not null
);

-- Sketches of all devices, added up per window as the devices cut it.
create table sketches (
    line       text   not null,
    version    bigint not null,
    role       text   not null,
    start_time bigint not null,
    end_time   bigint not null,
    sketch     blob   not null,
    parts      bigint not null,
    primary key (line, version, role, start_time, end_time)
);

-- Up to which event time each device has sent sketches of a line, whatever the version.
create table sketch_watermarks (
    line   text   not null,
    device text   not null,
    until  bigint not null,
    primary key (line, device)
);

-- What was found in every window that was judged. kind: inputs (sketches against the reference), quality (labels).
create table findings (
    line          text   not null,
    version       bigint not null,
    kind          text   not null check (kind in ('inputs', 'quality')),
    start_time    bigint not null,
    end_time      bigint not null,
    findings_json text   not null,
    judged        bigint not null,
    primary key (line, version, kind, start_time)
);

-- Agreement with labels by UTC day of event time. Made from the lake, and made again when records of that day arrive.
create table quality_days (
    line              text   not null,
    version           bigint not null,
    day               bigint not null,
    observations      bigint not null,
    labelled          bigint not null,
    positives         bigint not null,
    alarms            bigint not null,             -- positive decisions among the labelled
    hits              bigint not null,             -- of those, truly positive
    auc               double precision,
    average_precision double precision,
    primary key (line, version, day)
);

-- Days of which observations or labels arrived since they were last worked out.
create table quality_dirty (
    day   bigint not null primary key,
    since bigint not null
);
