-- What devices send of their raw observations, and what they gave up. Times are UTC microseconds.

-- Counts up in the order of arrival: where a reader goes on.
alter table gaps add column number bigint not null default 0;
-- Event times of the earliest and the latest record that was lost, where the device said so.
alter table gaps add column from_time bigint;
alter table gaps add column to_time bigint;
update gaps set number = rowid;
create unique index gaps_by_number on gaps (number);
create index gaps_by_time on gaps (stream, to_time);

-- Every change of a sampling policy has a number of its own, which devices report back.
create table sampling_changes (
    number      bigint not null primary key,
    name        text   not null,
    selector    text   not null,               -- labels that a device must have; empty: every device
    policy_json text,                          -- none: it was taken back
    changed     bigint not null
);
create index sampling_changes_by_name on sampling_changes (name, number);

-- The policies that hold now, each as its newest change says.
create table sampling_policies (
    name        text   not null primary key,
    number      bigint not null references sampling_changes (number),
    selector    text   not null,
    policy_json text   not null,
    changed     bigint not null
);

-- Estimates of the same counts over all that was served, sampled out or not. Days worked out before there was sampling
-- hold everything: there they are the counts.
alter table quality_days add column est_observations double precision not null default 0;
alter table quality_days add column est_labelled double precision not null default 0;
alter table quality_days add column est_positives double precision not null default 0;
alter table quality_days add column est_alarms double precision not null default 0;
alter table quality_days add column est_hits double precision not null default 0;
update quality_days set est_observations = observations, est_labelled = labelled, est_positives = positives,
    est_alarms = alarms, est_hits = hits;
