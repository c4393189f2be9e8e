-- Lives of devices' states that others have followed. Times are UTC microseconds.
create table former_lives (
    device      text   not null references devices (id),
    incarnation bigint not null,
    number      bigint not null,               -- of the last report heard of it
    ended       bigint not null,               -- when another was first heard
    primary key (device, incarnation)
);
