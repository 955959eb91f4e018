from tests.acceptance.world import World
from tests.acceptance.exports import a_small_export
import json
def test_look(shared: World) -> None:
    user = shared.a_user(a_small_export())
    shared.publish(user)
    run = shared.until_ended(user)
    print(run)
    for e in shared.announced(user): print(e)
    print(shared.profile(user))
    print(shared.chunks(user))
    for r in shared.asked(): print({k:v for k,v in r.items() if k!='body'}, json.dumps(r['body'])[-900:])
    print(shared.workers[0].log.read_text())
    print(shared.workers[0].get('/metrics')[1])
    assert 0
