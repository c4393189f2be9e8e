-- The signed metadata of the repository, as devices and mirrors fetch it. Times are UTC microseconds.
create table metadata (
    role    text   not null,              -- root, targets, snapshot, timestamp, or a delegated one such as models/card-fraud
    version bigint not null,
    bytes   blob   not null,              -- exactly what was signed and is served
    sha256  text   not null,
    expires bigint not null,
    stored  bigint not null,
    primary key (role, version)
);

-- A version, once stored, never gets other content. Old ones may go.
create trigger metadata_never_changed before update on metadata
begin select raise(abort, 'signed metadata is never changed: a change is a new version'); end;
create trigger metadata_only_grows before insert on metadata
when new.version <= (select coalesce(max(version), 0) from metadata where role = new.role)
begin select raise(abort, 'versions of signed metadata only grow'); end;

-- waiting: the line is attended, and nobody has signed the release yet. withdrawn: a person signed that it is one no more.
alter table releases add column state text not null default 'published'
    check (state in ('waiting', 'published', 'withdrawn'));
