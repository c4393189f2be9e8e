-- Roles beside the primary, rollouts to a part of the fleet, and flags. Times are UTC microseconds.

-- Of how many entities in 10 000 a challenger answers; 0: none, it is only scored.
alter table rollouts add column share bigint not null default 0;
-- Labels that a device must have; an empty object: every device.
alter table rollouts add column selector_json text not null default '{}';
alter table wishes add column share bigint not null default 0;

-- Flags for the applications beside the agents.
create table flags (
    target  text   not null,              -- device/<id>, or labels/<selector>
    key     text   not null,
    value   text   not null,
    changed bigint not null,
    primary key (target, key)
);
