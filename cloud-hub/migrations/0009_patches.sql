-- Cheaper ways to packages: compressed, or as the difference from one that is in the field. Times are UTC microseconds.
-- Everything here can be made again; a row is written only once its file is durable.
create table patches (
    target  text   not null,              -- hash of the package it leads to
    base    text   not null,              -- hash of the package it starts from; empty for the whole package compressed
    format  text   not null,
    state   text   not null check (state in ('made', 'skipped', 'failed')),
    length  bigint not null,              -- of the file; of the one thrown away where it was not worth it
    sha256  text   not null,              -- of the file
    reason  text   not null,              -- why there is no file
    seconds double precision not null,    -- what making it took
    made    bigint not null,
    primary key (target, base)
);
