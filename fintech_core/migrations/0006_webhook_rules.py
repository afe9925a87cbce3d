"""Who may hear what, and what of an event and its deliveries never changes.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from django.db import migrations

ENDPOINTS = """
CREATE FUNCTION fintech_core_webhookendpoint_begins() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    hears_all boolean;
BEGIN
    -- One at a time for a user: the next one counts this one, too.
    SELECT is_staff AND is_active INTO hears_all
      FROM users_user WHERE id = NEW.user_id FOR NO KEY UPDATE;
    IF NEW.scope = 'everybody' AND hears_all IS NOT TRUE THEN
        RAISE EXCEPTION 'endpoint %: only staff hear of everybody', NEW.id
            USING ERRCODE = '23514',
                  CONSTRAINT = 'fintech_core_webhookendpoint_everybody_is_for_staff';
    END IF;
    IF (SELECT count(*) FROM fintech_core_webhookendpoint
         WHERE user_id = NEW.user_id AND status IN ('active', 'disabled')) >= 10 THEN
        RAISE EXCEPTION 'endpoint %: its user has ten already', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'fintech_core_webhookendpoint_ten_at_most';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION fintech_core_webhookendpoint_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF OLD.status = 'deleted' THEN
        RAISE EXCEPTION 'endpoint %: deleted is final', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'fintech_core_webhookendpoint_deleted_is_final';
    END IF;
    IF (NEW.id, NEW.user_id, NEW.scope, NEW.created_at)
       IS DISTINCT FROM (OLD.id, OLD.user_id, OLD.scope, OLD.created_at) THEN
        RAISE EXCEPTION 'endpoint %: whose it is and what it may hear never changes', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'fintech_core_webhookendpoint_is_its_users';
    END IF;
    RETURN NEW;
END $$;

ALTER TABLE fintech_core_webhookendpoint
    ADD CONSTRAINT fintech_core_webhookendpoint_listens
        CHECK (cardinality(event_types) BETWEEN 1 AND 50),
    ADD CONSTRAINT fintech_core_webhookendpoint_secret_is_encrypted
        CHECK (secret LIKE 'gAAAAA%' AND coalesce(previous_secret, 'gAAAAA') LIKE 'gAAAAA%');

CREATE TRIGGER fintech_core_webhookendpoint_begins BEFORE INSERT ON fintech_core_webhookendpoint
    FOR EACH ROW EXECUTE FUNCTION fintech_core_webhookendpoint_begins();
CREATE TRIGGER fintech_core_webhookendpoint_guard BEFORE UPDATE ON fintech_core_webhookendpoint
    FOR EACH ROW EXECUTE FUNCTION fintech_core_webhookendpoint_guard();
"""

NO_ENDPOINTS = """
DROP TRIGGER fintech_core_webhookendpoint_guard ON fintech_core_webhookendpoint;
DROP TRIGGER fintech_core_webhookendpoint_begins ON fintech_core_webhookendpoint;
ALTER TABLE fintech_core_webhookendpoint
    DROP CONSTRAINT fintech_core_webhookendpoint_secret_is_encrypted,
    DROP CONSTRAINT fintech_core_webhookendpoint_listens;
DROP FUNCTION fintech_core_webhookendpoint_guard();
DROP FUNCTION fintech_core_webhookendpoint_begins();
"""

DELIVERIES = """
CREATE FUNCTION fintech_core_outgoingevent_keep() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'outgoing event %: what happened does not change', OLD.id
        USING ERRCODE = '23514', CONSTRAINT = 'fintech_core_outgoingevent_never_changes';
END $$;

CREATE FUNCTION fintech_core_webhookdelivery_may_be_heard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    stray uuid;
BEGIN
    SELECT delivery.id INTO stray
      FROM joined delivery
      JOIN fintech_core_outgoingevent event ON event.id = delivery.event_id
      JOIN fintech_core_webhookendpoint endpoint ON endpoint.id = delivery.endpoint_id
     WHERE endpoint.scope <> 'everybody' AND endpoint.user_id <> event.user_id
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'delivery %: the endpoint may not hear of this user', stray
            USING ERRCODE = '23514', CONSTRAINT = 'fintech_core_webhookdelivery_may_be_heard';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION fintech_core_webhookdelivery_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF (NEW.id, NEW.event_id, NEW.endpoint_id, NEW.created_at)
       IS DISTINCT FROM (OLD.id, OLD.event_id, OLD.endpoint_id, OLD.created_at) THEN
        RAISE EXCEPTION 'delivery %: what goes where never changes', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'fintech_core_webhookdelivery_is_frozen';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER fintech_core_outgoingevent_no_change BEFORE UPDATE ON fintech_core_outgoingevent
    FOR EACH ROW EXECUTE FUNCTION fintech_core_outgoingevent_keep();
CREATE TRIGGER fintech_core_webhookdelivery_may_be_heard
    AFTER INSERT ON fintech_core_webhookdelivery
    REFERENCING NEW TABLE AS joined
    FOR EACH STATEMENT EXECUTE FUNCTION fintech_core_webhookdelivery_may_be_heard();
CREATE TRIGGER fintech_core_webhookdelivery_guard BEFORE UPDATE ON fintech_core_webhookdelivery
    FOR EACH ROW EXECUTE FUNCTION fintech_core_webhookdelivery_guard();
"""

NO_DELIVERIES = """
DROP TRIGGER fintech_core_webhookdelivery_guard ON fintech_core_webhookdelivery;
DROP TRIGGER fintech_core_webhookdelivery_may_be_heard ON fintech_core_webhookdelivery;
DROP TRIGGER fintech_core_outgoingevent_no_change ON fintech_core_outgoingevent;
DROP FUNCTION fintech_core_webhookdelivery_guard();
DROP FUNCTION fintech_core_webhookdelivery_may_be_heard();
DROP FUNCTION fintech_core_outgoingevent_keep();
"""

# Who listens is found by two indexes, and nothing is written where nobody does. An id is a UUID of
# version 7 (RFC 9562), as Python makes them: milliseconds first, then chance.
OUTBOX = """
CREATE FUNCTION fintech_core_new_id() RETURNS uuid LANGUAGE sql VOLATILE
SET search_path = public, pg_temp AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
        substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid;
$$;

CREATE FUNCTION fintech_core_emit(events json) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    event record;
    listening uuid[];
BEGIN
    FOR event IN
        SELECT said.id, said.type, said.user_id, said.data
          FROM json_to_recordset(events) said (id uuid, type text, user_id uuid, data json)
    LOOP
        listening := ARRAY(
            SELECT id FROM fintech_core_webhookendpoint
             WHERE user_id = event.user_id AND status = 'active' AND scope = 'own'
               AND event_types && ARRAY[event.type, '*']::varchar[]
             UNION ALL
            SELECT id FROM fintech_core_webhookendpoint
             WHERE scope = 'everybody' AND status = 'active'
               AND event_types && ARRAY[event.type, '*']::varchar[]
        );
        IF cardinality(listening) > 0 THEN
            INSERT INTO fintech_core_outgoingevent (id, type, user_id, data, created_at)
            VALUES (event.id, event.type, event.user_id, event.data::text, statement_timestamp());
            INSERT INTO fintech_core_webhookdelivery (id, event_id, endpoint_id, status, attempts,
                next_attempt_at, last_error, created_at)
            SELECT fintech_core_new_id(), event.id, endpoint_id, 'pending', 0,
                   statement_timestamp(), '', statement_timestamp()
              FROM unnest(listening) endpoint_id;
        END IF;
    END LOOP;
END $$;
"""

NO_OUTBOX = """
DROP FUNCTION fintech_core_emit(json);
DROP FUNCTION fintech_core_new_id();
"""


class Migration(migrations.Migration):
    dependencies = [("fintech_core", "0005_webhooks"), ("users", "0001_initial")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [
        migrations.RunSQL([ENDPOINTS], [NO_ENDPOINTS]),
        migrations.RunSQL([DELIVERIES], [NO_DELIVERIES]),
        migrations.RunSQL([OUTBOX], [NO_OUTBOX]),
    ]
