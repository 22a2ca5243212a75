"""What pgbench does: the peer of the service.

Frozen: these are the statements that the service sent for a call, in one transaction a call, before its writes became one
statement (commit 802b451). Whatever the service sends by now, it is measured beside them; a change here would make the
figures of two days two different things. Only ids, addresses and phone numbers are put together from numbers, since
pgbench has nothing else.
"""

from __future__ import annotations

import json

from people import COLUMNS, FIRST_CREATED, FIRST_ORGANIZATION, FIRST_PERSON, ORGANIZATIONS, PERSON, PREFIX, STEP


def scripts() -> dict[str, str]:
    person = rf"""\set n random(0, :people - 1)
\set person {FIRST_PERSON} + :n * {STEP}
\set organization {FIRST_ORGANIZATION} + :n % {ORGANIZATIONS}
\set value random(0, 99999999)
"""
    # Somewhere in the indexes, as the service's are, and not one behind the other: even numbers, no two alike.
    created = rf"""\set created :created + 1
\set person {FIRST_CREATED} + :run * 10000000000000 + :client_id * 100000000000 + :created
\set organization {FIRST_ORGANIZATION} + :created % {ORGANIZATIONS}
\set value 100000000000000 + 2 * permute(:run * 100000000000 + :client_id * 1000000000 + :created, 450000000000000, 1)
"""
    row = ", ".join(f'"profile".{column}' for column in COLUMNS.split(", "))
    organization, identity = f"('{PREFIX}' || :organization)::uuid", f"('{PREFIX}' || :person)::uuid"
    select = f"SELECT {row} FROM profile WHERE organization_id = {organization} AND "
    for_update = " LIMIT 1 FOR UPDATE \\gset\n"
    change = "UPDATE profile SET revision = :revision + 1, {column} = 'City ' || :value, updated_at = now() WHERE id = :id;"
    history = ("INSERT INTO profile_change (profile_id, revision, organization_id, changed_at, rpc, key_id, key_name,"
               " lock_overridden, fields, old_values, new_values) VALUES ({id}, {revision}, " + organization +
               ", now(), 'ProfileService/PatchProfile', '0123456789abcdef', 'bench', false, '{fields}', {old}, {new});")
    city = "'{\"city\":\"City ' || :value || '\"}'"
    changed = history.format(id=":id", revision=":revision + 1", fields="city", old=city, new=city)
    new = PERSON.format(id=identity, organization=organization, date="::date", now="now()")
    new = new.replace("'person' || n", "'new' || :value").replace("'+1' || (1000000000 + n)", "'+' || :value")
    fields = "role first_name last_name email dob gender phone_number address address2 city state country postal_code"
    values = json.dumps({"role": "USER", "first_name": "Augusta Ada", "last_name": "King-Noel", "email": "new@example.com",
                         "dob": "1985-12-10", "gender": "FEMALE", "phone_number": "+800000000000000",
                         "address": "12 Analytical Avenue", "address2": "Apartment 4", "city": "Springfield",
                         "state": "NY", "country": "US", "postal_code": "01010"}, separators=(",", ":"))
    first = history.format(id=identity, revision=1, fields=fields, old="NULL", new=f"'{values}'")
    return {
        "get": f"{person}{select}id = {identity};\n",
        "create": f"{created}BEGIN;\nINSERT INTO profile ({COLUMNS}) VALUES ({new});\n{first}\nCOMMIT;\n",
        "patch": f"{person}BEGIN;\n{select}id = {identity}{for_update}{change.format(column='city')}\n{changed}\nCOMMIT;\n",
        "update": f"{person}BEGIN;\n{select}email = 'person' || :n || '@example.com'{for_update}"
                  f"{change.format(column='address')}\n{changed}\nCOMMIT;\n",
    }
